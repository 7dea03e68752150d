"""Imported by the workers of a launch's own Ray before they get a pack, because what they need takes seconds (see `quick_start`)."""

import importlib
import os
from contextlib import suppress

from kd_ray.cluster.ray_tune.trainable import no_collection

# One thread for libraries that look when they are imported, as Ray sets it for a pack of one CPU. It is for this import only.
_is_chosen = "OMP_NUM_THREADS" in os.environ
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What cannot be imported ends the pack that needs it, and is told there; here it would end the worker without a word.
with no_collection(), suppress(Exception, SystemExit):
    importlib.import_module("kd_ray.distill.worker")
if not _is_chosen:
    del os.environ["OMP_NUM_THREADS"]
