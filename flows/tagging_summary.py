"""What a tagging run tells: in the terminal, on a page, in files, and in the Prefect UI."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, Field

from flows.progress import show_table
from flows.tagging_page import RunFacts, markdown_summary, render_page
from store.files import join, write_whole
from store.predictions import write_predictions
from store.tagging_run import Folder, TaggingRun
from store.tally import Tally, tally
