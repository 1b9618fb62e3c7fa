"""What a search leaves behind: the best subnet, the front as data, and pictures of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mos_fairseq.figures import new_figure, save_figure
from mos_fairseq.files import write_atomically
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.search_space import Subnet

Row = dict[str, Any]
_AXES = {
    "loss": "validation loss [bits per token]",
    "bleu": "validation BLEU",
    "chrf": "validation chrF",
    "latency_ms": "predicted latency [ms]",
    "params": "parameters",
    "params_without_embeddings": "parameters without embeddings",
    "flops": "FLOPs",
    "flops_without_output_projection": "FLOPs without output projection",
    "encoder_ms": "predicted latency of the encoder [ms]",
    "decoder_ms": "predicted latency of the decoder [ms]",
    "transfer_bytes": "bytes between device and server",
    "split_latency_ms": "predicted latency, split between device and server [ms]",
}


def report(
    candidates: Candidates, best: Subnet | None, cost: str | Sequence[str], objective: str
) -> dict[str, Any]:
    """Best subnet, front and number of the subnets that this search looked at, as plain data.

    Args:
        best: what the algorithm chose; None for the lowest loss.
        cost: what the front trades the objective against; of several, pictures of two dimensions show the first.
    """
    from mos_fairseq.nas.pareto import front  # only now: it imports pymoo, and a command's table needs this module

    costs = [cost] if isinstance(cost, str) else list(cost)
    seen = list(candidates.seen.values())
    chosen = best or min(seen, key=lambda subnet: candidates.known[subnet.key])
    return {
        "best": row(candidates, chosen, objective),
        "front": [row(candidates, subnet, objective) for subnet in front(candidates, seen, costs)],
        "judged": len(seen),
        "objective": objective,
        "cost": costs[0],
        **({"costs": costs} if len(costs) > 1 else {}),
    }


def row(candidates: Candidates, subnet: Subnet, objective: str) -> Row:
    """Quality, costs and architecture of one subnet."""
    quality = abs(candidates.known[subnet.key])
    return {objective: quality} | candidates.costs_of([subnet])[0] | {"architecture": subnet.to_dict()}


def front_rows(results: Mapping[str, Any], number: int) -> list[Row]:
    """Up to ``number`` rows of the front over its whole range: those next to costs in equal steps."""
    rows, cost = results["front"], results["cost"]
    low, high = rows[0][cost], rows[-1][cost]
    steps = [low + (high - low) * step / (number - 1) for step in range(number)]
    nearest = {min(range(len(rows)), key=lambda index: abs(rows[index][cost] - step)) for step in steps}
    return [rows[index] for index in sorted(nearest)]


def add_measured(results: dict[str, Any], measured: Mapping[str, float]) -> None:
    """``measured_latency_ms`` into the rows whose canonical key is in ``measured``."""
    for found in (results["best"], *results["front"], *results["compared"].values()):
        key = Subnet.from_dict(found["architecture"]).key
        if key in measured:
            found["measured_latency_ms"] = measured[key]


def write_results(output: Path, results: dict[str, Any], seen: list[Row]) -> None:
    """``best.yaml``, ``front.jsonl``, ``search.json``, ``front.png`` and ``front.html`` in the folder ``output``, and
    ``uniform.yaml`` where ``results["compared"]`` has a uniform subnet.

    Args:
        seen: rows (see :func:`row`) of all subnets that the search looked at.

    Raises:
        InputError: a file cannot be written.
    """
    (output / "uniform.yaml").unlink(missing_ok=True)  # of an earlier search
    for name, found in {"best": results["best"], "uniform": results.get("compared", {}).get("uniform")}.items():
        if found is not None:
            Subnet.from_dict(found["architecture"]).save(output / f"{name}.yaml")
    lines = [json.dumps(found, allow_nan=False) for found in results["front"]]
    write_atomically(output / "front.jsonl", "".join(line + "\n" for line in lines))
    write_atomically(output / "search.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    plot_front(results, seen, output / "front.png")
    write_page(results, seen, output / "front.html")


def plot_front(results: dict[str, Any], seen: list[Row], path: Path) -> None:
    """Draw all subnets of the search, its front and its best, as a PNG."""
    cost, objective = results["cost"], results["objective"]
    figure = new_figure(6, 4)
    axes = figure.add_subplot()

    def points(rows: list[Row]) -> tuple[list[float], list[float]]:
        return [found[cost] for found in rows], [found[objective] for found in rows]

    axes.scatter(*points(seen), s=8, color="0.7", label="judged subnets")
    axes.plot(*points(results["front"]), marker="o", markersize=4, label="front")
    axes.plot(*points([results["best"]]), marker="*", markersize=12, linestyle="", label="best")
    if (budget := results.get("budgets", {}).get(cost)) is not None:
        axes.axvline(budget, color="0.4", linestyle="--", linewidth=1, label="budget")
    axes.set(xlabel=_AXES[cost], ylabel=_AXES[objective])
    axes.legend()
    save_figure(figure, path)


def write_page(results: dict[str, Any], seen: list[Row], path: Path) -> None:
    """The same as one HTML file without any other, in which the pointer shows each subnet's sizes and costs."""
    from plotly.graph_objects import Figure, Scatter

    cost, objective = results["cost"], results["objective"]
    front = {str(found["architecture"]) for found in results["front"]}
    others = [found for found in seen if str(found["architecture"]) not in front]  # nothing shall lie over the front
    measured = [found for found in results["front"] if cost == "latency_ms" and "measured_latency_ms" in found]

    def trace(name: str, rows: list[Row], **style: Any) -> Scatter:
        return Scatter(
            name=name,
            x=[found[cost] for found in rows],
            y=[found[objective] for found in rows],
            text=[describe(found, objective) for found in rows],
            hovertemplate="%{text}<extra></extra>",
            **style,
        )

    figure = Figure()
    figure.add_trace(trace("judged subnets", others, mode="markers", marker={"color": "#bbbbbb", "size": 5}))
    star = {"symbol": "star", "size": 16, "color": "#ff7f0e"}
    figure.add_trace(trace("best", [results["best"]], mode="markers", marker=star))
    blue = {"size": 9, "color": "#1f77b4"}
    figure.add_trace(trace("front", results["front"], mode="lines+markers", marker=blue, line={"color": "#1f77b4"}))
    if measured:
        rows = [found | {cost: found["measured_latency_ms"]} for found in measured]
        hollow = {"symbol": "circle-open", "size": 9, "color": "black"}
        figure.add_trace(trace("front, measured", rows, mode="markers", marker=hollow))
    if (budget := results.get("budgets", {}).get(cost)) is not None:
        figure.add_vline(budget, line_dash="dash", line_color="#666666", annotation_text=f"budget {budget:.6g}")
    figure.update_layout(
        title=f"Front of {results['judged']} judged subnets",
        xaxis_title=_AXES[cost] + (", measured where hollow" if measured else ""),
        yaxis_title=_AXES[objective],
        template="plotly_white",
        hoverlabel={"align": "left", "font": {"family": "monospace"}},
    )
    page = figure.to_html(include_plotlyjs=True, full_html=True, div_id="front", config={"displaylogo": False})
    if "costs" in results:
        page = page.replace("</body>", _parallel(results) + "</body>", 1)
    title = "<head><title>mos-search: front</title>"
    write_atomically(path, page.replace("<head>", title, 1))


def _parallel(results: dict[str, Any]) -> str:
    """The front's subnets as lines over parallel axes, of quality and of each cost: a range drawn on an axis leaves the
    lines that pass through it."""
    from plotly.graph_objects import Figure, Parcoords

    rows, objective = results["front"], results["objective"]
    axes = [{"label": _AXES[key], "values": [found[key] for found in rows]} for key in (objective, *results["costs"])]
    colour = {"color": [found[objective] for found in rows], "colorscale": "Viridis", "showscale": False}
    figure = Figure(Parcoords(line=colour, dimensions=axes))
    figure.update_layout(title=f"Front of {1 + len(results['costs'])} objectives", template="plotly_white")
    return figure.to_html(include_plotlyjs=False, full_html=False, div_id="parallel", config={"displaylogo": False})


def describe(found: Row, objective: str) -> str:
    """What the page says of a subnet: its quality, its costs and its layers, as lines of HTML."""
    units = {"latency_ms": "predicted latency {:.2f} ms", "measured_latency_ms": "measured latency {:.2f} ms"}
    units |= {"split_latency_ms": "split latency {:.2f} ms", "transfer_bytes": "{:,.0f} bytes sent"}
    units |= {"params": "{:,.0f} parameters", "flops": "{:,.0f} FLOPs"}
    lines = [f"<b>{objective} {found[objective]:.4f}</b>"]
    lines += [text.format(found[key]) for key, text in units.items() if found.get(key) is not None]
    return "<br>".join([*lines, *Subnet.from_dict(found["architecture"]).summary().split(" | ")])
