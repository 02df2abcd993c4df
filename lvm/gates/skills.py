"""What the gates on a model and on a night read of the four skills."""

from collections.abc import Mapping

from lvm.evaluation.evaluate import SKILLS, Evaluation
from lvm.evaluation.intervals import Interval


def four_skills(found: Evaluation) -> dict[str, Interval]:
    """The skill in each metric of `SKILLS`: both heads are judged, and retrieval by the first hit as well as by the first five."""
    return {metric: found.skill(metric) for metric in SKILLS}


def skill_text(found: Evaluation, skills: Mapping[str, Interval]) -> str:
    """Each metric of the model, its skill with the interval, and the baseline that it is over."""
    return "; ".join(
        f"{metric} {found.model.quantity(metric).mean():.4f}, skill {skill} over {found.best_baseline(metric)}"
        for metric, skill in skills.items()
    )


def uncertain(skills: Mapping[str, Interval]) -> list[str]:
    """The metrics whose interval does not lie wholly above 0."""
    return [metric for metric, skill in skills.items() if not skill.above_zero()]


def certainly_worse(skills: Mapping[str, Interval]) -> list[str]:
    """The metrics whose interval lies wholly below 0, or is not a number."""
    return [metric for metric, skill in skills.items() if skill.high is not None and not skill.high >= 0]
