"""How the numbers of a report were made, for a reader who has to judge them."""

from __future__ import annotations

import math

from yolo_losses.comparison.language import Text
from yolo_losses.comparison.report.notes import with_interval
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis
from yolo_losses.comparison.stats.differences import Spreads
from yolo_losses.comparison.stats.verdict import format_points


def describe_method(result: Analysis) -> list[str]:
    """Return a line for each step, with its numbers."""
    k = max((len(with_interval(result, scope)) for scope in result.scopes), default=0)
    lines = [
        Text(
            "Model: a mean for each configuration and one for each seed, fitted to all finished runs of a data set,"
            " since runs of one seed share initial weights and the order of the images. A seed that only one"
            " configuration has contributes to no difference."
        ),
        *(_spread(result, scope, spreads) for scope, spreads in result.spreads.items()),
    ]
    if any(c.estimate and c.estimate.images for c in result.comparisons.values()):
        lines.append(
            Text(
                "Validation images: the variance over a bootstrap of the images, the same for all runs, is added to"
                " the variance over seeds, without the part that the seeds already include."
            )
        )
    intervals = Text("a t interval")
    if k > 1:
        intervals = Text("simultaneous, from the distribution of the largest of {k} correlated |t|", k=k)
    text = (
        "Intervals: {intervals}. Better or worse: the interval excludes 0. Practically equal: it lies within ±{rope}"
        " points. Leans: the 95 % interval of that configuration alone excludes 0. Inconclusive: none of these."
    )
    lines += [
        Text(text, intervals=intervals, rope=f"{result.rope * 100:g}"),
        Text(
            "The number of seeds that would decide assumes that difference and spread are as seen, and a power of 80 %."
        ),
        Text(
            "The best epoch is chosen on the validation split itself, which favours every configuration, noisy ones"
            " most; the last epoch has no such bias."
        ),
    ]
    if ALL_SETS in result.scopes:
        lines.append(
            Text(
                "Mean over data sets: every data set has the same weight, and data sets take the place of seeds in the"
                " model."
            )
        )
    if result.decisions:
        lines.append(
            Text(
                "Seeds were added in rounds until everything was decided. The error rate of 5 % is spent over the"
                " rounds (O'Brien-Fleming); the interval of a configuration is from the last round in which it was"
                " judged, at the level of that round."
            )
        )
    return lines


def _spread(result: Analysis, scope: str, spreads: Spreads) -> str:
    if math.isinf(spreads.prior_df):
        moderated = Text("Those of single configurations differ by no more than chance, so this one is used for all")
    else:
        text = (
            "Those of single configurations differ by more than chance, and each is shrunk toward this one, which has"
            " the weight of {df} degrees of freedom"
        )
        moderated = Text(text, df=f"{spreads.prior_df:.2g}")
    if spreads.apart:
        alone = [f"{result.labels[name]} ({format_points(sd, sign=False)})" for name, sd in spreads.apart.items()]
        text = "{moderated}; unusually large ones are used unchanged, with their own degrees of freedom: {alone}"
        moderated = Text(text, moderated=moderated, alone=alone)
    text = "Spread over {over}: standard deviation {sd} points, pooled, with {df} degrees of freedom. {moderated}."
    over = Text("data sets" if scope == ALL_SETS else "seeds")
    if len(result.sets) > 1:
        over = Text.joined(", ", (over, result.titles[scope]))
    sd, df = format_points(spreads.pooled, sign=False), f"{spreads.df:.3g}"
    return Text(text, over=over, sd=sd, df=df, moderated=moderated)
