"""A model from outside, kept in the store: a Hugging Face folder, or a Hub id at a revision."""

import shutil
from pathlib import Path

from endonym.core.config import Config, ExternalPath
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Stage

KEPT = ("*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "LICENSE*", "README.md")


class ImportConfig(Config):
    path: ExternalPath | None = None
    """A folder with config.json and safetensors; its bytes are its identity, not its place."""
    hub: str = ""
    """Or an id on the Hub, such as Qwen/Qwen3-8B-Base; HF_HOME, HF_TOKEN and HF_HUB_OFFLINE count."""
    revision: str = "main"
    """Of the Hub id. A commit's hash stays what it is; a branch's name may come to mean another."""
    licence: str = ""


def import_model(config: ImportConfig, context: Context, out: Path) -> Outcome:
    """The folder's configuration, weights and tokenizer, copied; the weights are loaded once as proof.

    A folder without tokenizer.json but with SentencePiece pieces and scores (vocab_scores.json, as
    llama2.c's checkpoints carry them) gets a tokenizer.json made of these. Pickled weights are refused.
    """
    from endonym.model import hf
    from endonym.tokenizer.folder import Tokenizer

    if (config.path is None) == (not config.hub):
        raise RecipeError("one source is needed", wanted='path = "FOLDER" or hub = "ORG/NAME"')
    figures = {}
    if config.hub:
        folder, figures["commit"] = _download(config.hub, config.revision)
    else:
        folder = Path(config.path)
    if not (folder / "config.json").is_file():
        raise DataError(
            "the folder holds no model",
            where=folder,
            wanted="config.json and safetensors",
            got=", ".join(sorted(p.name for p in folder.iterdir())[:8])
            if folder.is_dir()
            else "a file",
        )
    for pattern in KEPT:
        for file in folder.glob(pattern):
            shutil.copyfile(file, out / file.name)
    if not (out / "tokenizer.json").is_file():
        from endonym.tokenizer.convert import from_folder

        if not (folder / "vocab_scores.json").is_file():
            raise DataError(
                "the folder holds no tokenizer",
                where=folder,
                wanted="tokenizer.json (or vocab_scores.json: SentencePiece pieces and scores)",
                do="save it with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)",
            )
        from_folder(folder).save(out)
    words = Tokenizer.load(out)
    model = hf.load(out)
    if words.vocab_size > model.config.vocab_size:
        raise DataError(
            "the tokenizer has more tokens than the model has rows",
            where=folder,
            wanted=f"at most {model.config.vocab_size}",
            got=words.vocab_size,
        )
    figures |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocab_size": words.vocab_size,
        "runs_as": type(model).__name__,
    }
    return Outcome(figures, [config.licence] if config.licence else [])


def _download(hub: str, revision: str) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub, revision=revision, allow_patterns=list(KEPT)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            "the model could not be fetched from the Hub",
            where=f"{hub} at {revision}",
            got=str(error).splitlines()[0],
            do="check the id, HF_TOKEN and the network, or give a local folder as path",
        ) from None
    return folder, folder.name


STAGE = Stage(
    name="import", version=1, kind="model", config=ImportConfig, slots={}, function=import_model
)
