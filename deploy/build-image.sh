#!/usr/bin/env bash
# Build the cpu image without any image registry: a Debian base by mmdebstrap, wheels by pip, the image by buildah.
# With --demo, run `spectrogram-one demo` inside it. Needs root, and Debian's packages buildah and mmdebstrap.
#   deploy/build-image.sh [--demo] [FOLDER]     FOLDER (build/image) keeps the base, the wheels and the storage
set -euo pipefail
cd "$(dirname "$0")/.."

main() { # read whole before it runs: it may be edited while an image is built
  demo=false
  if [[ "${1:-}" == --demo ]]; then demo=true; shift; fi
  folder=$(realpath --canonicalize-missing "${1:-build/image}")
  image=localhost/spectrogram-one:cpu
  mkdir -p "$folder/wheels" "$folder/run"

  # Nothing of the host's container set-up is read or written: storage, policy and isolation are all here.
  export BUILDAH_ISOLATION=chroot
  buildah() { command buildah --storage-driver vfs --root "$folder/storage" --runroot "$folder/run" "$@"; }
  printf '{"default": [{"type": "insecureAcceptAnything"}]}' >"$folder/policy.json"

  if [[ ! -d "$folder/base" ]]; then
    rm -rf "$folder/base.part"  # of an interrupted run
    mmdebstrap --variant=minbase --include=python3.11,python3.11-venv,ca-certificates bookworm "$folder/base.part"
    mv "$folder/base.part" "$folder/base"
  fi
  if ! buildah inspect --type image localhost/debian-python >/dev/null 2>&1; then
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder/base" / >/dev/null
    buildah commit --quiet --signature-policy "$folder/policy.json" --rm "$container" localhost/debian-python >/dev/null
  fi

  if ! cmp --silent requirements.lock "$folder/requirements.lock"; then
    ${PYTHON:-python3.11} -m pip download --quiet --no-deps --requirement requirements.lock --dest "$folder/wheels" setuptools wheel
    cp requirements.lock "$folder/requirements.lock"
  fi
  # One layer for each stage: with vfs every layer is a whole copy, and with --layers this took 40 GB.
  buildah bud --quiet --signature-policy "$folder/policy.json" --layers=false --format docker --target cpu --tag "$image" --file deploy/Dockerfile \
    --build-arg BASE=localhost/debian-python --build-arg PIP_OPTIONS="--no-index --find-links /wheels" \
    --volume "$folder/wheels:/wheels:ro" .
  echo "built $image: $(buildah images --format '{{.Size}}' "$image")"

  if $demo; then
    container=$(buildah from --pull-never --signature-policy "$folder/policy.json" "$image")
    trap 'buildah rm "$container" >/dev/null' EXIT
    buildah run --user 10001:10001 "$container" -- spectrogram-one demo
  fi
}

main "$@"
