"""The names of the files in the folder of a training run."""

RUN_FILE = "run.json"
TRACKS_FILE = "tracks.parquet"
PRETRAINED_FILE = "pretrained.safetensors"
HISTORY_FILE = "history.json"
RUN_PREDICTIONS_FILE = "held_out_predictions.parquet"
