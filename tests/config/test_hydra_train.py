"""``fairseq-hydra-train`` for real; a mistake as users start it, in a process of its own."""

import pytest

from .conftest import CONFIG

pytestmark = pytest.mark.slow


def test_trains_and_generates_from_another_folder(commands, data, tmp_path):
    (tmp_path / "data").symlink_to(data)
    recipe = ["search_space=tiny", "optimization.max_update=3", "common.log_interval=1"]
    paths = ["task.data=data", "checkpoint.save_dir=runs/one"]
    config = ["--config-dir", CONFIG, "--config-name", "translation_mos"]
    done = commands.fork("hydra-train", *config, *recipe, *paths, cwd=tmp_path)
    assert done.out.count("| train_inner |") == 3 and "loss_smallest" in done.out

    # relative to where the command was typed, and nothing else is left behind
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in written if not path.startswith("data/")} == {
        "runs/one/checkpoint_best.pt",
        "runs/one/checkpoint_last.pt",
    }

    plugin = ["--user-dir", CONFIG.parent, "--task", "translation_mos", "--subnet", "smallest"]
    search = ["--path", "runs/one/checkpoint_best.pt", "--beam", 2, "--max-len-b", 5]
    assert len(commands.fork("generate", "data", *plugin, *search, cwd=tmp_path).hypotheses()) == 6


def test_language_model(commands, monolingual, tmp_path):
    config = ["--config-dir", CONFIG, "--config-name", "language_modeling_mos", "search_space=tiny_lm"]
    options = ["optimization.max_update=2", "common.log_interval=1", "checkpoint.save_dir=one"]
    done = commands.fork("hydra-train", *config, *options, f"task.data={monolingual}", cwd=tmp_path)
    assert done.out.count("| train_inner |") == 2 and "loss_smallest" in done.out
    assert (tmp_path / "one" / "checkpoint_best.pt").is_file()


def test_a_mistake_is_one_line(commands, data, tmp_path):
    config = ["--config-dir", CONFIG, "--config-name", "translation_mos", "search_space=tiny", f"task.data={data}"]
    mistake = ["model.mos_routing=neurons", "checkpoint.save_dir=one"]
    done = commands.spawn("hydra-train", *config, *mistake, cwd=tmp_path, check=False)
    words = "model.mos_routing: Invalid value 'neurons', expected one of [none, layer, neuron, rank]"
    assert (done.status, done.err.splitlines()[-1]) == (1, f"error: {words}")
    assert "Traceback" not in done.err and not [path for path in tmp_path.rglob("*") if path.is_file()]
