"""What a recipe says of the nine steps; the defaults are the release's (shared METHODS 2.4)."""

from pydantic import Field

from endonym.core.config import Config
from endonym.core.errors import RecipeError
from endonym.synth.instruct.cross_validation import Minimums


class Settings(Config):
    language: str
    """Of the samples: constraints are made in it, and rows that name no language are taken for it."""
    teacher: str = ""
    """The model's name at a chat server, which ENDONYM_TEACHER_URL or OPENAI_BASE_URL names. Without it
    and without the slot `teacher` known replies are edited by rule."""
    judge: str = ""
    """The judge's name at the server of ENDONYM_JUDGE_URL (else as the teacher's); "": the teacher."""
    pool: list[str] = Field(default_factory=list)
    """Languages whose packed constraints are used; []: `language` alone."""
    constraints: int = Field(default=500, ge=0)
    """Asked of the teacher beside the packed ones, 50 a call; the paper does not say how many."""
    functions: int = Field(default=5, gt=0)
    """Samples of a verifier function for each constraint."""
    cases: int = Field(default=3, gt=0)
    """Test cases in each of these samples."""
    verifier_temperature: float = Field(default=0.2, ge=0)
    minimums: Minimums = Minimums()
    per_query: int = Field(default=1, gt=0)
    """Constraints that each query is put together with, one in each sample."""
    responses: int = Field(default=2, gt=0)
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=4096, gt=0)
    """Of a reply; one that is cut off is dropped."""
    judge_above: float | None = Field(default=8.0, ge=0, lt=10)
    """Replies with a higher score stay; None: nothing is judged. The release's README says 7 or more."""
    system: float = Field(default=0.5, ge=0, le=1)
    """Samples with the constraint as system prompt."""
    plain: float = Field(default=8 / 17, ge=0, le=1)
    """Of the others, those where it simply follows the query."""
    translate: float = Field(default=1.0, ge=0, le=1)
    """Of the constraints of another language that meet a query in `language`, those that are translated."""
    precision: str = Field(default="float32", pattern="^(float32|bfloat16)$")
    """Of a teacher that is a model folder."""
    amount: int | None = Field(default=None, gt=0)
    """At most so many samples."""
    seed: int = 0

    @property
    def languages(self) -> list[str]:
        return self.pool or [self.language]


NEED_A_TEACHER = (
    *("judge", "constraints", "functions", "cases", "verifier_temperature", "minimums"),
    *("responses", "temperature", "max_tokens", "judge_above", "precision"),
)


def check(settings: Settings, has_folder: bool) -> bool:
    """Whether a model answers; RecipeError where a setting would not be heeded."""
    if settings.teacher and has_folder:
        raise RecipeError(
            "two teachers are named",
            where="teacher",
            wanted="a name at a server, or a model in the slot `teacher`",
            got="both",
        )
    has_teacher = bool(settings.teacher) or has_folder
    for name in () if has_teacher else NEED_A_TEACHER:
        if getattr(settings, name) != type(settings).model_fields[name].default:
            raise RecipeError(
                f"the setting {name!r} would not be heeded",
                wanted='a teacher: teacher = "NAME", or a model in the slot `teacher`',
                do="name one, or leave the setting out: replies are edited by rule",
            )
    return has_teacher
