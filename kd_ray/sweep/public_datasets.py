"""Published data sets of rows and of texts under `dataset` in a sweep file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kd_ray.sweep.architectures import TextModelName
from kd_ray.sweep.classification import MaxLength, Modality, OfficialValidation, RandomValidation, Tokenizing
from kd_ray.sweep.fields import Fingerprint, refuse


class AdultDataset(RandomValidation):
    """Adult, also known as Census Income (Becker & Kohavi 1996, UCI), from `adult.data` and `adult.test` under `<data_root>/adult`.

    Inputs are all columns but `fnlwgt`, the number of people that a row represents: numbers, standardised, and categories as 0 and 1.
    """

    name: Literal["adult"]
    target: Literal["income"] = "income"
    """What is classified: `<=50K` or `>50K` dollars a year."""
    missing: Literal["leave_out", "category"] = "leave_out"
    """Treatment of rows with `?` in workclass, occupation or native-country: 2,399 of the training split's 32,561 and 1,221 of the test
    split's 16,281. `leave_out` removes them from both, `category` makes `?` a category."""
    sensitive_inputs: bool = True
    """Whether the networks see sex, race and age. Without them, other columns still tell much: `relationship` has husbands and wives."""
    age_edges: Annotated[tuple[Annotated[int, Field(ge=18, le=90)], ...], Field(min_length=1)] = (25, 60)
    """Where the ages are cut into groups; an age equal to an edge belongs to the group above it."""
    version: Fingerprint = "original"
    """`original` (checksums of the published files), or the fingerprint of another set of files in the same layout."""

    @property
    def modality(self) -> Modality:
        """The kind of samples."""
        return "rows"

    @property
    def files(self) -> tuple[str, ...]:
        """Both splits."""
        return ("adult/adult.data", "adult/adult.test")

    @property
    def num_classes(self) -> int:
        """Up to and above 50,000 dollars."""
        return 2

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """Of the census."""
        return ("sex", "race", "age")

    def without_grouping(self, used: str | None = None) -> Self:
        """Without edges of the ages; where ages are inputs, they are numbers."""
        return self if used == "age" else self.model_copy(update={"age_edges": (25, 60)})

    @model_validator(mode="after")
    def _edges_increase(self) -> Self:
        if list(self.age_edges) != sorted(set(self.age_edges)):
            raise refuse("age_edges", f"must increase, got {list(self.age_edges)}")
        return self


class HatexplainDataset(OfficialValidation):
    """HateXplain (Mathew et al., AAAI 2021): posts labelled by three annotators, from `<data_root>/hatexplain/Data`.

    The splits are those of `post_id_divisions.json`; posts on which all three annotators differ are in none of them.
    """

    name: Literal["hatexplain"]
    target: Literal["toxic", "label"] = "toxic"
    """By majority vote: `toxic`, hate speech or offensive against normal; `label`, the three classes."""
    tokenizer: TextModelName
    """`hf:NAME`: whose tokenizer turns posts into numbers; teacher and student must know these numbers."""
    tokenizer_version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    """Fingerprint of the tokenizer; left out, `plan` fills in that of the one it finds, so it is part of every trial's identity."""
    max_length: MaxLength = 128
    """Most tokens of a post, the two at its ends included; longer posts are cut."""
    version: Fingerprint = "original"
    """`original` (all 20,148 posts in `dataset.json`), or the fingerprint of what is there."""
    train_file: Literal["dataset", "train_partial"] = "dataset"
    """Where training posts come from: `dataset`, the published `Data/dataset.json`; `train_partial`, a substitute where that file holds
    only the other splits: `train_partial.jsonl.gz`, which has the same posts and votes, and of the communities only a union or the first
    annotator's."""
    min_annotators: Annotated[int, Field(ge=1, le=3)] = 2
    """Annotators of three that must name a community for a post to count as targeting it."""
    several_groups: Literal["each", "leave_out", "own_group"] = "each"
    """A post that targets several groups of a feature: counts in each; in none; or in a group `several` of their own."""
    no_group: Literal["leave_out", "own_group"] = "leave_out"
    """A post that targets no group of a feature: counts in none, or in a group `not targeted` of their own."""

    @property
    def modality(self) -> Modality:
        """The kind of samples."""
        return "texts"

    @property
    def files(self) -> tuple[str, ...]:
        """Posts, splits, and the substitute file if it is asked for."""
        return (
            "hatexplain/Data/dataset.json",
            "hatexplain/Data/post_id_divisions.json",
            *(["hatexplain/train_partial.jsonl.gz"] if self.train_file == "train_partial" else []),
        )

    @property
    def tokenizing(self) -> Tokenizing:
        """How posts become numbers."""
        return Tokenizing(tokenizer=self.tokenizer, version=self.tokenizer_version, max_length=self.max_length)

    @property
    def num_classes(self) -> int:
        """Normal and toxic, or normal, offensive and hate speech."""
        return 2 if self.target == "toxic" else 3

    @property
    def sensitive_feature_names(self) -> tuple[str, ...]:
        """Each has the groups that `data/hatexplain.py` names."""
        return ("gender", "race", "religion")

    def without_grouping(self, used: str | None = None) -> Self:
        """Without the rules for the groups of posts."""
        if used is not None:
            return self
        return self.model_copy(update={"min_annotators": 2, "several_groups": "each", "no_group": "leave_out"})


PublicDataset = AdultDataset | HatexplainDataset
"""One of the published families of rows or texts."""
