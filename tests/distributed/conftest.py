"""The tasks of tests/tasks."""

from tests.tasks.conftest import make_model, make_task  # noqa: F401
