"""A source: one item of the recipe's `data`."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tunewright import Dataset, RecipeError
from tunewright.check import choose
from tunewright.recipe import Section
from tunewright.source import Source
from tunewright.urls import is_url
from tunewright_dataset_chat import files
from tunewright_dataset_chat.endings import known_encoding

_BASIC: Any = {"tier": "basic"}  # for forms


class Entry(Dataset.Entry):
    """A source: an item of the recipe's `data`, or of a list in `eval_data`."""

    path: str | None = Field(None, min_length=1, json_schema_extra={**_BASIC, "widget": "path"})
    """File, folder (read recursively), or pattern such as data/*.jsonl, relative to the recipe's
    folder: .jsonl, .json, .csv, .tsv, .txt with one document per line (each also as .gz, .bz2, .xz
    or .zst), .parquet, .arrow, .feather; a folder written by `save_to_disk` of datasets; the same
    on s3://, gs://, az:// or hf://; a file on https://; or the name of a data set on `hub`."""
    hub: Literal["hf", "modelscope", "modelers"] | None = Field(None, json_schema_extra=_BASIC)
    """Hub that holds the data set `path`: Hugging Face, ModelScope or Modelers. It is read with the
    hub's own library."""
    dataset_info: str | None = Field(None, min_length=1)
    """A dataset_info.json of LLaMA-Factory, or its folder, instead of path. Fields of this source
    override it."""
    name: str | None = Field(None, min_length=1)
    """Name of the data set in dataset_info."""
    split: str | None = Field(None, min_length=1)
    """Split to read, of a data set on a hub or written by `save_to_disk`, or of a folder. Splits of
    a folder (train, validation, test) are found from its dataset card (README.md), or from the
    names of its files and folders. Default: train."""
    subset: str | None = Field(None, min_length=1)
    """Subset of a data set with several, on a hub or in a folder with a dataset card. Hugging Face
    also calls it config or configuration."""
    folder: str | None = Field(None, min_length=1)
    """Folder to read in a data set on a hub."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit of a hub's data set."""
    encoding: str = "utf-8"
    """Encoding of text files (.jsonl, .json, .csv, .tsv, .txt), such as latin-1, cp1252 or gbk."""
    format: Section | None = Field(None, json_schema_extra=_BASIC)
    """Format plugin that reads the records: its name, or a mapping with name and options. Default:
    detected from the first records."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The format's name for a column → its name in this source, such as {messages: dialogue}."""
    tags: dict[str, str] = Field(default_factory=dict)
    """The format's name for a key or a role → its name in this source, such as {assistant: bot}."""
    limit: int | None = Field(None, gt=0)
    """Maximum number of records, from the start."""
    weight: float = Field(1.0, gt=0, le=10_000)
    """Repetitions of each example per epoch. 2: twice. 0.5: half of the examples, the others in the
    next epoch. With mixing interleave: the source's share of an epoch, relative to the other
    weights."""
    media_root: str | None = Field(None, min_length=1)
    """Base folder of the paths of images, videos and audio files, relative to the recipe's folder.
    Default: the folder of the data."""

    @field_validator("format")
    @classmethod
    def _known_format(cls, written: Section | None) -> Section | None:
        """Check the format here, before a model is loaded."""
        if written:
            try:
                choose("format", written, Source(""), ())
            except RecipeError as error:
                raise ValueError(str(error)) from error
        return written

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, written: str) -> str:
        return known_encoding(written)

    @model_validator(mode="after")
    def _one_place(self) -> "Entry":
        if (self.path is None) == (self.dataset_info is None):
            raise ValueError("expected either path or dataset_info")
        if (self.name is None) != (self.dataset_info is None):
            raise ValueError("dataset_info and name go together")
        if self.path is not None and self.hub is None:
            for field in ("folder", "revision"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field} is for data sets of a hub, and no hub is named")
        return self

    @model_validator(mode="after")
    def _is_there(self, info: ValidationInfo) -> "Entry":
        """Check that the data exists, before a model is loaded. Data prepared elsewhere needs no
        sources."""
        here = self.path and not self.hub and not is_url(self.path)
        if here and info.context and info.context["dataset"].prepared is None:
            try:
                files.find(str(self.path), info.context["root"], self.wanted(""))
            except RecipeError as error:
                raise ValueError(str(error)) from error
        return self

    def wanted(self, place: str) -> files.Wanted:
        """Settings for the files of `path`. place: of the path in the recipe, for errors."""
        return files.Wanted(place, self.split, self.subset, self.encoding)
