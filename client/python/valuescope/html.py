"""Tables for notebooks. Everything shown is escaped: names and texts come from models, files and other people.

IPython finds `_repr_html_` on this package's own classes. The contract's messages cannot carry one; `show_in_notebooks` tells a
running IPython how to show them.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Iterable, Mapping, Sequence

from . import v1
from .figures import shown

_CELL = ' style="text-align: left; white-space: pre-wrap; vertical-align: top"'


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    *,
    cell_style: str = _CELL,
) -> str:
    """A table of escaped cells; a `Markup` cell stands as it is.

    Args:
        cell_style: attributes of every cell, each behind a space; none where a page has a style of its own.
    """
    head = "".join(f"<th{cell_style}>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td{cell_style}>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def of_records(records: Sequence[Mapping[str, object]], caption: str = "") -> str:
    """A table of rows that all have the same columns."""
    headings = [name.replace("_", " ") for name in records[0]] if records else []
    return table(headings, [[shown(cell) for cell in row.values()] for row in records], caption)


class Markup(str):
    """Text that is HTML already."""


def models(found: Iterable[v1.Model]) -> str:
    """One row a model; of one that is beneath no root of this server, who has it."""
    headings = ["model", "state", "family", "layers", "hidden", "neurons a layer", "dtype", "on"]
    rows: list[list[object]] = []
    for m in found:
        if m.state == v1.MODEL_STATE_UNSPECIFIED:
            who = ", ".join(has.replica for has in m.replicas)
            rows.append([m.name, f"elsewhere: {who}", "", "", "", "", "", ""])
            continue
        sizes = [m.num_layers, m.hidden_size, m.intermediate_size]
        rows.append([m.name, _model_state(m), m.family, *sizes, _dtype(m.dtype), m.device])
    return table(headings, rows)


def replicas(found: Iterable[v1.Replica]) -> str:
    """One row a server and model; one for a server without any."""
    headings = [
        "server",
        "version",
        "heard (UTC)",
        "model",
        "state",
        "dtype",
        "hardware",
        "tokens/s",
    ]
    rows: list[list[object]] = []
    for replica in found:
        heard = f"{replica.heartbeat_time.ToDatetime():%H:%M:%S}"
        server = [replica.name, replica.version, heard]
        if not replica.models:
            rows.append([*server, "", "", "", "", ""])
        for model in replica.models:
            state = v1.ModelState.Name(model.state).removeprefix("MODEL_STATE_").lower()
            speed = f"{model.tokens_per_second:.0f}" if model.HasField("tokens_per_second") else ""
            how = [_dtype(model.dtype), model.hardware_class, speed]
            rows.append([*server, model.model, state, *how])
    return table(headings, rows)


def usage(found: Iterable[v1.TenantUsage]) -> str:
    """One row a sum."""
    headings = ["tenant", "from (UTC)", "to (UTC)", "calls", "prompt tokens", "generated", "job s"]
    return table(
        headings,
        [
            [
                each.tenant,
                f"{each.start_time.ToDatetime():%Y-%m-%d %H:%M}",
                f"{each.end_time.ToDatetime():%Y-%m-%d %H:%M}",
                each.calls,
                each.prompt_tokens,
                each.generated_tokens,
                f"{each.job_seconds:.1f}",
            ]
            for each in found
        ],
    )


def jobs(found: Iterable[v1.Job]) -> str:
    """One row a job, with a bar."""
    headings = ["job", "name", "kind", "state", "progress", "error"]
    return table(
        headings,
        [
            [
                j.name,
                j.display_name,
                j.kind,
                _job_state(j),
                _bar(j.progress),
                j.error.message,
            ]
            for j in found
        ],
    )


def vector(found: v1.Vector) -> str:
    """One vector: where it lives, and the norm and reliability of each row where it was extracted.

    "true norm" is the interval of the norm without noise; from 0 on where noise alone gives such a row.
    """
    site = v1.Site.Name(found.site).removeprefix("SITE_").lower()
    rows = [
        [
            s.layer,
            f"{s.norm:.4g}",
            _interval(s),
            f"{s.relative_norm:.3g}" if s.HasField("relative_norm") else "",
            f"{s.reliability:.3f}" if s.HasField("reliability") else "",
            f"{s.auroc:.3f}" if s.HasField("auroc") else "",
            ", ".join(dict.fromkeys(absence(one) for one in s.missing)),
        ]
        for s in found.statistics
    ]
    caption = f"{found.name} {found.display_name}: {found.model} {site} [{len(found.layers)}, {found.width}]"
    headings = ["layer", "norm", "true norm", "norm / |x|", "reliability", "AUROC", "missing"]
    return table(headings, rows, caption)


def absence(missing: v1.MissingStatistic) -> str:
    """Why a number is missing, such as "one query"."""
    name = v1.StatisticAbsence.Name(missing.absence)
    return name.removeprefix("STATISTIC_ABSENCE_").lower().replace("_", " ")


def show_in_notebooks() -> None:
    """Lets the IPython that runs this process, if one does, show models, jobs and vectors as tables."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(v1.Model, lambda model: models([model]))
    formatter.for_type(v1.Job, lambda job: jobs([job]))
    formatter.for_type(v1.Vector, vector)


def _interval(statistics: v1.VectorStatistics) -> str:
    # Records that lack it have an interval of another kind.
    if not statistics.HasField("squared_norm_interval"):
        return ""
    bounds = statistics.norm_interval
    return f"{bounds.lower:.4g} to {bounds.upper:.4g}"


def _dtype(dtype: v1.DataType) -> str:
    return v1.DataType.Name(dtype).removeprefix("DATA_TYPE_").lower()


def _model_state(model: v1.Model) -> str:
    state = v1.ModelState.Name(model.state).removeprefix("MODEL_STATE_").lower()
    if model.state == v1.MODEL_STATE_LOADING:
        return f"{state} {model.load_progress:.0%}"
    return f"{state}: {model.state_message}" if model.state_message else state


def _job_state(job: v1.Job) -> str:
    state = v1.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    return f"{state}: {job.waiting_for}" if job.waiting_for else state


def _bar(progress: v1.JobProgress) -> Markup:
    text = f"{progress.done}/{progress.total} {progress.unit}"
    if progress.HasField("eta"):
        text += f", {progress.eta.seconds} s left"
    bar = f'<progress value="{progress.done}" max="{max(1, progress.total)}"></progress>'
    return Markup(f"{bar} {html.escape(text)}")


def escape(cell: object) -> str:
    """A cell or text as HTML; `Markup` stands as it is."""
    return cell if isinstance(cell, Markup) else html.escape(str(cell))
