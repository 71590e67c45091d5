"""A double of the Kubernetes API for custom resources: what is created is kept, and Running if the operator is up."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class KubernetesApi:
    """Resources by kind in the plural, those that were deleted too, and the file that names the server."""

    kubeconfig: Path
    operator_is_up: bool = True
    refused: str = ""
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)


@contextmanager
def kubernetes_api(folder: Path) -> Iterator[KubernetesApi]:
    """Serve on loopback, with a kubeconfig in the folder."""
    api = KubernetesApi(folder / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def respond(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def fail(self, status: int, message: str) -> None:
            self.respond(status, {"kind": "Status", "status": "Failure", "message": message, "code": status})

        def do_POST(self) -> None:
            resource = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if api.refused:
                return self.fail(403, api.refused)
            if api.operator_is_up:
                resource["status"] = {"phase": "Running"}
            api.resources[f"{self.path.rpartition('/')[2]}/{resource['metadata']['name']}"] = resource
            return self.respond(201, resource)

        def do_GET(self) -> None:
            if self.path.startswith("/version"):
                return self.respond(200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
            name = "/".join(self.path.partition("?")[0].split("/")[-2:])
            if name not in api.resources:
                return self.fail(404, f"{name} not found")
            return self.respond(200, api.resources[name])

        def do_DELETE(self) -> None:
            name = "/".join(self.path.partition("?")[0].split("/")[-2:])
            api.deleted.append(name)
            return self.respond(200, api.resources.pop(name))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server_url = f"http://127.0.0.1:{server.server_port}"
        api.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "double", "cluster": {"server": server_url}}],
                    "users": [{"name": "nobody", "user": {}}],
                    "contexts": [{"name": "double", "context": {"cluster": "double", "user": "nobody"}}],
                    "current-context": "double",
                }
            )
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield api
        server.shutdown()
        thread.join()
