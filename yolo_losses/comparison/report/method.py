"""How the numbers of a report were made, for a reader who has to judge them."""

from __future__ import annotations

import math

from yolo_losses.comparison.language import Text
from yolo_losses.comparison.report.notes import with_interval
from yolo_losses.comparison.stats.analysis import ALL_SETS, Analysis
from yolo_losses.comparison.stats.differences import Spreads
from yolo_losses.comparison.stats.verdict import points


def describe_method(result: Analysis) -> list[str]:
    """Return a line for each step, with its numbers."""
    k = max((len(with_interval(result, scope)) for scope in result.scopes), default=0)
    lines = [
        Text(
            "Model: a mean for each configuration and one for each seed, fitted to all finished runs of a data set,"
            " since runs of one seed share initial weights and the order of the images. A seed that one configuration"
            " alone has tells nothing of a difference."
        ),
        *(_spread(result, scope, spreads) for scope, spreads in result.spreads.items()),
    ]
    if any(c.estimate and c.estimate.images for c in result.comparisons.values()):
        lines.append(
            Text(
                "Validation images: the variance over a bootstrap of the images, the same for all runs, is added to"
                " that over seeds; what the seeds show of it already counts once."
            )
        )
    intervals = Text("a t interval")
    if k > 1:
        intervals = Text("those of the largest of {k} correlated t, which hold all together", k=k)
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
            "The best epoch is chosen on the validation split itself, which flatters every configuration, noisy ones"
            " most; the last epoch is free of that choice."
        ),
    ]
    if ALL_SETS in result.scopes:
        lines.append(Text("Mean over data sets: every set weighs the same, and the sets take the place of the seeds."))
    if result.decisions:
        lines.append(
            Text(
                "Seeds were added in rounds until all was decided. The 5 % are spent over the rounds (O'Brien-Fleming),"
                " and the interval of a configuration is that of the round at which it was judged last, at the level of"
                " it."
            )
        )
    return lines


def _spread(result: Analysis, scope: str, spreads: Spreads) -> str:
    if math.isinf(spreads.prior_df):
        moderated = Text("Those of the configurations differ by no more than chance, so that this one is used for all")
    else:
        text = (
            "Those of the configurations differ by more than chance, and each is moved toward this one, which has the"
            " weight of {df} degrees of freedom"
        )
        moderated = Text(text, df=f"{spreads.prior_df:.2g}")
    if spreads.apart:
        alone = [f"{result.labels[name]} ({points(sd, sign=False)})" for name, sd in spreads.apart.items()]
        text = "{moderated}; larger than the rest, and used as they are, with their own degrees of freedom: {alone}"
        moderated = Text(text, moderated=moderated, alone=alone)
    text = "Spread over {over}: standard deviation {sd} points, pooled, with {df} degrees of freedom. {moderated}."
    over = Text("data sets" if scope == ALL_SETS else "seeds")
    if len(result.sets) > 1:
        over = Text.joined(", ", (over, result.titles[scope]))
    sd, df = points(spreads.pooled, sign=False), f"{spreads.df:.3g}"
    return Text(text, over=over, sd=sd, df=df, moderated=moderated)
