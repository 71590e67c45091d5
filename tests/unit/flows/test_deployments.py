"""What `serve` imports to offer the forms of the flows."""

import subprocess
import sys

from tests.support.prefect_ui import FLOWS

SCRIPT = """
import sys
import flows.deployments
names = ("torch", "distributed", "dask", "sklearn", "scipy", "matplotlib", "zarr", "numba", "pyarrow")
print([name for name in names if name in sys.modules])
for flow in flows.deployments.FLOWS:
    print(flow.name, list(flow.parameters.properties))
"""


def test_the_forms_need_the_settings_only():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    imported, *forms = done.stdout.splitlines()
    assert imported == "[]"
    assert forms == [f"{name} ['settings']" for name in FLOWS]
