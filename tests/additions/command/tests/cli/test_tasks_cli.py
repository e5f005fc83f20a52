"""`stackrev tasks` lists every task."""

import json

from stackrev import cli
from stackrev.tasks import TASKS


def test_every_task_is_listed(capfd):
    assert cli.main(["tasks", "--json"]) == 0
    assert [each["task"] for each in json.loads(capfd.readouterr().out)] == list(TASKS)
