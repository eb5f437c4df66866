"""A made-up teacher and the queries that it is asked, for the tests of the stage `instruct`. Without torch:
a test starts processes that import this."""

import json
import re
from collections import Counter
from pathlib import Path

from endonym.core.artifact import Artifact
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.data.document import Conversation, read_table, write_table
from endonym.stages.instruct import STAGE
from endonym.synth.instruct.emission import Checked
from endonym.synth.instruct.settings import Settings

REPLY = "การออกกำลังกายมีประโยชน์ต่อร่างกาย\nควรทำเป็นประจำทุกวัน\nพักผ่อนให้พอและดื่มน้ำสะอาด"


def artifact(folder: Path, kind: str, **more) -> Artifact:
    file = f"{kind}.parquet"
    record = {"kind": kind, "address": folder.name, "files": {file: {}}, "licences": [folder.name]}
    return Artifact(folder, record | more)


def talks(folder: Path, count: int = 40, language: str = "", reply: str = REPLY) -> Artifact:
    folder.mkdir(parents=True)
    rows = [
        Conversation(
            f"{folder.name}/{n}",
            [
                {"role": "user", "content": f"คำถามที่ {n} เรื่องสุขภาพ"},
                {"role": "assistant", "content": f"{reply}\nข้อที่ {n}"},
            ],
            language,
            source="made",
            licence="CC0-1.0",
        )
        for n in range(count)
    ]
    write_table(folder / "conversations.parquet", rows)
    return artifact(folder, "conversations")


FUNCTION = "def evaluate(text, words, sentences):\n    return text.count('!') >= 1"
NO_MARKS = "def evaluate(text, words, sentences):\n    return text.count('?') == 0"
CASES = [(f"สวัสดี {n}!", True) for n in range(6)] + [(f"สวัสดี {n}", False) for n in range(6)]


class Teacher:
    """What the model says in each step. made: constraints that it thinks of, by how they fare."""

    made = {
        "ต้องมีเครื่องหมายอัศเจรีย์ในคำตอบ": "good",
        "ห้ามขึ้นต้นด้วยสระในคำตอบนี้": "always true",
        "ต้องมีคำว่า {คำ} ในคำตอบ": "placeholder",
        "ทุกบรรทัดต้องมีเครื่องหมายคำถาม": "contradicted",
        "คำตอบต้องยาวเป็นเลขคู่ของตัวอักษร": "hostile",
    }

    def __init__(self):
        self.asked: Counter[str] = Counter()
        self.down: set[str] = set()

    def answer(self, text: str, seed: int) -> tuple[str, str]:
        """(step, answer)."""
        if "new constraints of the same sort" in text:
            return "pool", "\n".join(f"- {each}" for each in self.made)
        if "Write a Python function" in text:
            return "verifier", self.verifier(text, seed)
        if "This Python function checks" in text:
            return "back", "ห้ามถามในคำตอบ" if "'?'" in text else "ใส่ ! อย่างน้อยหนึ่งตัว"
        if "Two instructions" in text:
            return "relation", "contradiction" if "ห้ามถาม" in text else "entailment"
        if "You judge replies" in text:
            score = 3 if "ข้อที่ 5" in text else 9
            return "judge", f"Fine.\nScore: {score}"
        script = "" if "คำถามที่ 3" not in text else " 猫"
        return "reply", f"ดีมาก{script}!\nข้อที่ {re.search('คำถามที่ ([0-9]+)', text)[1]} {seed}"

    def verifier(self, text: str, seed: int) -> str:
        fate = next(fate for made, fate in self.made.items() if made in text)
        source = {
            "good": FUNCTION + f"  # {seed}",
            "always true": f"def evaluate(text, words, sentences):\n    return True  # {seed}",
            "contradicted": NO_MARKS + f"  # {seed}",
            "hostile": f"import sys\ndef evaluate(text, words, sentences):\n    sys.exit({seed})",
        }[fate]
        cases = (
            CASES if fate != "contradicted" else [(t.replace("!", "?"), not r) for t, r in CASES]
        )
        part = cases[seed * 4 : seed * 4 + 4]
        told = [{"text": t, "result": str(r).lower()} for t, r in part]
        return json.dumps({"function": source, "cases": told})


def context(folder: Path) -> Context:
    return Context(scratch=folder, console=Console(quiet=True))


def run_model(folder, **settings):
    data = folder / "talks"
    known = artifact(data, "conversations") if data.exists() else talks(data, 6)
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    known_settings = {"language": "th", "teacher": "big", "constraints": 50, "per_query": 14}
    settings = known_settings | {"functions": 3, "cases": 4} | settings
    inputs = {"queries": {"q": known}, "teacher": None}
    outcome = STAGE.run(Settings.read(settings), context(folder / "scratch"), out, inputs)
    return list(read_table(out / "conversations.parquet", Checked)), outcome
