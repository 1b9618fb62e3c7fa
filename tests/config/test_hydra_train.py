"""``fairseq-hydra-train`` for real, as users start it."""

import pytest

from .conftest import CONFIG

pytestmark = pytest.mark.slow


def test_trains_and_generates_from_another_folder(command, data, tmp_path):
    (tmp_path / "data").symlink_to(data)
    recipe = ["search_space=tiny", "optimization.max_update=3", "common.log_interval=1"]
    paths = ["task.data=data", "checkpoint.save_dir=runs/one"]
    config = ["--config-dir", CONFIG, "--config-name", "translation_mos"]
    done = command(tmp_path, "fairseq-hydra-train", *config, *recipe, *paths)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("| train_inner |") == 3 and "loss_smallest" in done.stdout

    # relative to where the command was typed, and nothing else is left behind
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in written if not path.startswith("data/")} == {
        "runs/one/checkpoint_best.pt",
        "runs/one/checkpoint_last.pt",
    }

    plugin = ["--user-dir", CONFIG.parent, "--task", "translation_mos", "--subnet", "smallest"]
    search = ["--path", "runs/one/checkpoint_best.pt", "--beam", 2, "--max-len-b", 5]
    done = command(tmp_path, "fairseq-generate", "data", *plugin, *search)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sum(line.startswith("H-") for line in done.stdout.splitlines()) == 6


def test_language_model(command, monolingual, tmp_path):
    config = ["--config-dir", CONFIG, "--config-name", "language_modeling_mos", "search_space=tiny_lm"]
    options = ["optimization.max_update=2", "common.log_interval=1", "checkpoint.save_dir=one"]
    done = command(tmp_path, "fairseq-hydra-train", *config, *options, f"task.data={monolingual}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("| train_inner |") == 2 and "loss_smallest" in done.stdout
    assert (tmp_path / "one" / "checkpoint_best.pt").is_file()


def test_a_mistake_is_one_line(command, data, tmp_path):
    config = ["--config-dir", CONFIG, "--config-name", "translation_mos", "search_space=tiny", f"task.data={data}"]
    done = command(tmp_path, "fairseq-hydra-train", *config, "model.mos_routing=neurons", "checkpoint.save_dir=one")
    words = "model.mos_routing: Invalid value 'neurons', expected one of [none, layer, neuron, rank]"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"error: {words}")
    assert "Traceback" not in done.stderr and not [path for path in tmp_path.rglob("*") if path.is_file()]
