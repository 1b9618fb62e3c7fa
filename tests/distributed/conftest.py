"""The tasks of tests/tasks and the corpus of tests/cli."""

from tests.cli.conftest import files, joined, text  # noqa: F401
from tests.tasks.conftest import make_model, make_task  # noqa: F401
