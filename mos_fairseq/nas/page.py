"""The page of a search: its front, and the best subnet for any budget, in a browser and without a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.files import write_atomically
from mos_fairseq.search_space import Subnet

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Row = dict[str, Any]

AXES = {
    "loss": "validation loss [bits per token, of classifiers per example]",
    "accuracy": "validation accuracy [%]",
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
_MEASURED = "measured_latency_ms"


def write_page(results: dict[str, Any], seen: Sequence[Row], path: Path, checkpoint: str = "CHECKPOINT") -> None:
    """Write the page, and beside it ``plotly.min.js``, which it loads.

    The pointer shows each subnet's sizes and costs. A slider chooses a budget; budgets of other costs hold as in the
    search. A table has the best subnet within them, the best uniform one, the smallest and the largest; the YAML of the
    selected one can be saved. Until the slider is moved, the best is ``results["best"]``, as in ``best.yaml``.

    Args:
        results, seen: as in :func:`mos_fairseq.nas.results.write_results`.
        checkpoint: the checkpoint in the page's export command.
    """
    from plotly.offline import get_plotlyjs

    cost, objective = results["cost"], results["objective"]
    shown = {"front": _to_html(_figure(results, seen), "front"), "parallel": ""}
    if "costs" in results:
        shown["parallel"] = _to_html(_parallel(results), "parallel", script=False)
    keys = [objective, *(key for key in (cost, _MEASURED, "params", "flops") if any(row.get(key) for row in seen))]
    if any(_MEASURED in row for row in (results["best"], *results["front"])) and _MEASURED not in keys:
        keys.insert(2, _MEASURED)
    data = {
        "rows": _choices(results, seen),
        "cost": cost,
        "objective": objective,
        "axis": AXES[cost],
        "budget": results.get("budgets", {}).get(cost),
        "others": {key: limit for key, limit in results.get("budgets", {}).items() if key != cost},
        "note": _note(results),
        "columns": list(dict.fromkeys(keys)),
        "names": AXES | {_MEASURED: "measured latency [ms]"},
        "path": checkpoint,
    }
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # so no text can end its script element
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    page = page.replace("<!--TITLE-->", f"Front of {results['within_budgets']} judged subnets")
    page = page.replace("<!--FIGURE-->", shown["front"]).replace("<!--PARALLEL-->", shown["parallel"])
    write_atomically(path.with_name("plotly.min.js"), get_plotlyjs())
    write_atomically(path, page.replace("<!--DATA-->", text))


def _choices(results: dict[str, Any], seen: Sequence[Row]) -> list[Row]:
    """Return the subnets that are best within some budget: the front, the uniform front, and the subnets to compare."""
    cost, objective = results["cost"], results["objective"]
    compared, best = results.get("compared", {}), Subnet.from_dict(results["best"]["architecture"]).key
    rows: dict[str, Row] = {}
    for found in (results["best"], *results["front"], *compared.values(), *_uniform_front(seen, cost, objective)):
        subnet = Subnet.from_dict(found["architecture"])
        named = {name for name, row in compared.items() if row["architecture"] == found["architecture"]}
        rows[subnet.key] = {key: value for key, value in found.items() if key != "architecture"} | {
            "best": subnet.key == best,
            "uniform": _is_uniform(subnet),
            "smallest": "smallest" in named,
            "largest": "largest" in named,
            "summary": subnet.summary(),
            "yaml": subnet.to_yaml(),
            "text": describe(found, objective),
        }
    return list(rows.values())


def _note(results: dict[str, Any]) -> str:
    """Return what the page says if another value than its own chose the best."""
    if "calibrated" not in results:
        return ""
    objective, value = results["objective"], results["best"]["calibrated"]
    return (
        f"best.yaml, shown at first, is the best after calibration ({objective} {value:.4f}). This page has each "
        f"subnet's {objective} with inherited weights, and the slider ranks by it."
    )


def _is_uniform(subnet: Subnet) -> bool:
    return all(len(set(value)) <= 1 for value in subnet.to_dict().values() if isinstance(value, list))


def _uniform_front(seen: Sequence[Row], cost: str, objective: str) -> list[Row]:
    """Return the uniform subnets that are better than every cheaper one."""
    rows = [found for found in seen if _is_uniform(Subnet.from_dict(found["architecture"]))]
    sign, best, front = 1 if objective == "loss" else -1, float("inf"), []
    for found in sorted(rows, key=lambda row: (row[cost], sign * row[objective])):
        if sign * found[objective] < best:
            best = sign * found[objective]
            front.append(found)
    return front


def _to_html(figure: Figure, name: str, script: bool = True) -> str:
    shown = {"displaylogo": False, "responsive": True}
    return figure.to_html(include_plotlyjs="directory" if script else False, full_html=False, div_id=name, config=shown)


def _figure(results: dict[str, Any], seen: Sequence[Row]) -> Figure:
    from plotly.graph_objects import Figure, Scatter

    cost, objective = results["cost"], results["objective"]
    front = {str(found["architecture"]) for found in results["front"]}
    others = [found for found in seen if str(found["architecture"]) not in front]  # nothing may cover the front
    measured = [found for found in results["front"] if cost == "latency_ms" and _MEASURED in found]

    def trace(name: str, rows: Sequence[Row], **style: Any) -> Scatter:
        return Scatter(
            name=name,
            x=[found[cost] for found in rows],
            y=[found[objective] for found in rows],
            text=[describe(found, objective) for found in rows],
            hovertemplate="%{text}<extra></extra>",
            **style,
        )

    figure = Figure()
    figure.add_trace(trace("judged subnets", others, mode="markers", marker={"color": "#999999", "size": 5}))
    star = {"symbol": "star", "size": 16, "color": "#ff7f0e"}
    figure.add_trace(trace("best within the budget", [results["best"]], mode="markers", marker=star))
    blue = {"size": 9, "color": "#1f77b4"}
    figure.add_trace(trace("front", results["front"], mode="lines+markers", marker=blue, line={"color": "#1f77b4"}))
    if measured:
        rows = [found | {cost: found[_MEASURED]} for found in measured]
        hollow = {"symbol": "circle-open", "size": 9, "color": "#888888"}
        figure.add_trace(trace("front, measured", rows, mode="markers", marker=hollow))
    budget = results.get("budgets", {}).get(cost, results["best"][cost])
    figure.add_vline(budget, line_dash="dash", line_color="#888888")
    figure.update_layout(
        xaxis_title=AXES[cost] + (", measured where hollow" if measured else ""),
        yaxis_title=AXES[objective],
        template="plotly_white",
        hoverlabel={"align": "left", "font": {"family": "monospace"}},
        margin={"t": 20, "b": 40},
    )
    return figure


def _parallel(results: dict[str, Any]) -> Figure:
    """Draw the front's subnets as lines over parallel axes, one for quality and for each cost. A range drawn on an axis
    keeps the lines that pass through it."""
    from plotly.graph_objects import Figure, Parcoords

    rows, objective = results["front"], results["objective"]
    axes = [{"label": AXES[key], "values": [found[key] for found in rows]} for key in (objective, *results["costs"])]
    colour = {"color": [found[objective] for found in rows], "colorscale": "Viridis", "showscale": False}
    figure = Figure(Parcoords(line=colour, dimensions=axes))
    figure.update_layout(title=f"Front of {1 + len(results['costs'])} objectives", template="plotly_white")
    return figure


def describe(found: Row, objective: str) -> str:
    """Return the page's text about a subnet: its quality, its costs and its layers, as lines of HTML."""
    units = {"latency_ms": "predicted latency {:.2f} ms", _MEASURED: "measured latency {:.2f} ms"}
    units |= {"split_latency_ms": "split latency {:.2f} ms", "transfer_bytes": "{:,.0f} bytes sent"}
    units |= {"params": "{:,.0f} parameters", "flops": "{:,.0f} FLOPs"}
    lines = [f"<b>{objective} {found[objective]:.4f}</b>"]
    lines += [text.format(found[key]) for key, text in units.items() if found.get(key) is not None]
    return "<br>".join([*lines, *Subnet.from_dict(found["architecture"]).summary().split(" | ")])
