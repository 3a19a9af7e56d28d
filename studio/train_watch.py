"""A training as it is seen while it runs: state and buttons, curves, samples over the steps, what learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.jobs.queue import resumed
from pipelines.jobs.store import Row
from studio.charts import Series, curves
from studio.desk import Desk
from studio.markup import Markup, action, bar, join, note, problem, tag
from studio.train_story import Story
from studio.words import duration, size

PARTS = {
    "unet": ("Drawing network", "The network that turns noise into a picture, step by step (UNet)."),
    "transformer": ("Drawing network", "The network that turns noise into a picture (transformer)."),
    "text encoder": ("Prompt reader", "Turns the words of a prompt into numbers (text encoder)."),
    "text encoder 2": ("Second prompt reader", "A second text encoder."),
    "text encoder 3": ("Third prompt reader", "A third text encoder."),
    "autoencoder": ("Picture coder", "Turns pictures into the small form that is drawn in, and back (VAE)."),
}
GROUPS = {
    "attention": ("attention", "Layers where the parts of the picture look at each other and at the words."),
    "feedforward": ("feed-forward", "Layers that work on each place of the picture alone."),
    "conv": ("convolutions", "Layers that see small neighbourhoods: edges, textures."),
    "words": ("words", "The meaning of each word."),
    "other": ("the rest", "Norms, first and last layers."),
    "all": ("all of it", "Everything in it."),
}


def title_of(row: Row) -> str:
    """What a training teaches, in its own words."""
    data: Any = getattr(row.spec, "data", None)
    return f"{getattr(data, 'token', '')} {getattr(data, 'class_word', '')}".strip() or f"training {row.id}"


def state(desk: Desk, row: Row, story: Story, waiting: list[Row]) -> Markup:
    """How far it is, what can be done about it, and which trainings wait behind it."""
    parts: list[Markup] = [tag("h3", title_of(row), cls="subject")]
    if row.status == "queued":
        parts.append(_line(desk.queue.why_it_waits(row.id), "Waiting", 0.0))
        parts.append(
            tag("div", action("Take it out of the queue", "stop", row.id, cls="act danger"), cls="acts")
        )
    elif row.status == "running":
        parts.append(_running(row, story))
    elif row.status == "done":
        parts.append(note(tag("strong", "It is done."), f" {_took(row)}", kind="good"))
    else:
        parts.append(_ended(row, story))
    parts += [_behind(desk, each) for each in waiting if each.id != row.id]
    return join(parts)


def _running(row: Row, story: Story) -> Markup:
    total = story.total or row.total or 0
    if not story.step or not total:
        aside, share, told = _preparing(row), None, "Preparing"
    else:
        left = f", about {duration(story.seconds_left)} left" if story.seconds_left else ""
        aside, share, told = f"step {story.step:,} of {total:,}{left}", story.step / total, "Learning"
    buttons = tag(
        "div",
        action("Sample now", "sample", row.id, title="Draw the sample prompts with what is learned so far"),
        action("Save now", "save", row.id, title="Keep what is learned so far as a file of its own"),
        action("Pause", "pause", row.id, title="Stop with everything kept, and go on whenever you like"),
        action(
            "Stop", "finish", row.id, cls="act danger",
            title="End it here, with a file of what is learned so far",
        ),
        cls="acts",
    )  # fmt: skip
    return join([_line(aside, told, share), buttons])


def _preparing(row: Row) -> str:
    return f"{row.step:,} of {row.total:,}" if row.total else "loading the base, looking at the photos"


def _line(aside: str, told: str, share: float | None) -> Markup:
    words = tag("div", tag("b", told), tag("span", aside), cls="line")
    return tag("div", words, bar(share, "Training"), cls="progress", role="status")


def _took(row: Row) -> str:
    if row.started is None or row.ended is None:
        return ""
    what = "Its last part" if getattr(row.spec, "resume", False) else "It"
    return f"{what} took {duration(row.ended - row.started)}."


def _ended(row: Row, story: Story) -> Markup:
    """A training that was paused, stopped, cut or failed: what is kept, and how to go on."""
    kept = resumed(row) is not None
    label = "Go on" if kept else "Start again"
    button = tag("div", action(label, "again", row.id, cls="act main"), cls="acts")
    if row.status == "failed":
        error = row.error or {}
        said = problem(error.get("message", "It failed."), error.get("remedy", ""))
        return join([said, button])
    where = f" at step {story.step:,} of {story.total:,}" if story.step and story.total else ""
    head = "Paused" if row.status == "cancelled" else "Interrupted"
    tail = " What it learned is kept." if kept else " It had not come to its first checkpoint."
    return join([note(tag("strong", f"{head}{where}."), tail, kind="warning"), button])


def _behind(desk: Desk, row: Row) -> Markup:
    why = desk.queue.why_it_waits(row.id)
    return tag(
        "div",
        tag("span", tag("b", title_of(row)), f" waits. {why}"),
        action("Take out", "stop", row.id, cls="act danger", aria_label=f"Take {title_of(row)} out"),
        cls="waits",
    )


def charts(story: Story, best: int | None = None) -> Markup:
    """Loss, and readings over the steps."""
    if not story.losses and not story.readings:
        return Markup("")
    mark = (float(best), "kept") if best else None
    total = float(story.total) or None
    loss = curves(
        "Loss",
        [Series("each step", story.losses, faint=True), Series("mean of 20", story.smooth)],
        total=total,
        mark=mark,
        help="How wrong its guesses are. It is noisy, and a low one alone says little: look at the samples.",
    )
    looks = curves(
        "Likeness and obedience",
        [Series("likeness", story.curve("dino_i")), Series("obedience", story.curve("clip_t"))],
        total=total,
        mark=mark,
        help="How like your photos the samples are, and how well they show their prompts. Higher is better.",
    )
    memory = curves(
        "What the base still knows",
        [Series("its class", story.curve("kept_class")), Series("other things", story.curve("kept_world"))],
        total=total,
        mark=mark,
        help="1 is as before the training. When it falls, the base forgets.",
    )
    kept = memory if story.curve("kept_class") else None
    return tag("div", looks if story.readings else None, loss, kept, cls="charts")


def strip(desk: Desk, row: Row, story: Story, best: int | None = None) -> Markup:
    """The samples of every look, oldest first, in a row that scrolls sideways."""
    folder = folder_of(row)
    looks: list[Markup] = []
    for step, names in story.samples:
        shown = [(desk.url(folder / name), name) for name in names] if folder else []
        images = [
            tag("img", src=where, alt=f"Sample {index} after step {step}", loading="lazy")
            for index, (where, _) in enumerate(shown, 1)
            if where
        ]
        if images:
            words = f"step {step:,}" + (", kept" if step == best else "")
            looks.append(
                tag("figure", *images, tag("figcaption", words), cls="look on" if step == best else "look")
            )
    if not looks:
        return Markup("")
    head = tag("div", tag("b", "Samples on the way"), tag("span", "same prompts, same seeds"), cls="line")
    return join([
        head,
        tag("div", *looks, cls="strip", tabindex="0", role="group", aria_label="Samples over the steps"),
    ])  # fmt: skip


def anatomy(story: Story, rows: list[dict[str, Any]] | None = None) -> Markup:
    """The parts of the base as blocks: what learns in colour, what stays as it is in grey."""
    told = rows or story.anatomy
    if not told:
        return Markup("")
    parts: dict[str, list[dict[str, Any]]] = {}
    for each in told:
        parts.setdefault(str(each["part"]), []).append(each)
    learns = sum(int(each["bytes"]) for each in told)
    frozen = sum(int(each["parameters"]) for each in told if not each["trained"])
    head = tag("div", tag("b", "What learns, and what stays as it is"), cls="line")
    legend = tag(
        "div",
        tag("span", tag("i", cls="key learns"), "learns ", tag("b", size(learns))),
        tag("span", tag("i", cls="key stays"), "stays as it is ", tag("b", f"{weights(frozen)} weights")),
        cls="legend",
    )
    blocks = [_part(name, groups) for name, groups in parts.items()]
    return join([head, legend, tag("div", *blocks, cls="anatomy")])


def _part(name: str, groups: list[dict[str, Any]]) -> Markup:
    words, help = PARTS.get(name, (name, ""))
    count = sum(int(each["parameters"]) for each in groups)
    inner = [_group(each) for each in groups if each["parameters"] or each["trained"]]
    return tag(
        "div",
        tag("div", tag("b", words), tag("span", f"{weights(count)} weights"), cls="line", title=help or None),
        tag("div", *inner, cls="groups"),
        cls="part",
    )


def _group(row: dict[str, Any]) -> Markup:
    words, help = GROUPS.get(str(row["group"]), (str(row["group"]), ""))
    trained = int(row["trained"])
    # areas by the square root: the smallest group must still hold its name
    grow = max(1, round(int(row["parameters"]) ** 0.5 / 50))
    told = f"learns {size(int(row['bytes']))}" if trained else "stays"
    return tag(
        "div", tag("b", words), tag("span", told), cls="group learns" if trained else "group stays",
        style=f"flex-grow:{grow}", title=help or None,
    )  # fmt: skip


def said(story: Story, result: dict[str, Any] | None) -> Markup:
    """Warnings, then what else the training said."""
    alarms = list((result or {}).get("alarms") or story.alarms)
    others = [each for each in story.notes if each not in alarms]
    parts = [note(tag("strong", "Watch out. "), each, kind="warning") for each in alarms]
    if others:
        lines = [tag("li", each) for each in others]
        label = "What it said on the way" + (f" ({len(others)})" if len(others) > 1 else "")
        parts.append(tag("details", tag("summary", label), tag("ul", *lines), cls="said"))
    return join(parts)


def folder_of(row: Row) -> Path | None:
    """The folder of a training's run."""
    where = (row.result or {}).get("out") or getattr(row.spec, "out", None) or row.run
    return Path(str(where)) if where else None


def weights(count: int) -> str:
    """A number of weights: 850, 12 thousand, 3.4 million."""
    for unit, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= unit:
            value = count / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"
    return str(count)
