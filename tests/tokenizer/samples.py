"""Small texts to learn from, the same at every run, and the folder of real data where it exists."""

import os
import random
from pathlib import Path

_THAI = (
    "ประเทศ ไทย มี ประชากร จำนวน มาก และ น้ำ ท่วม ที่ กรุงเทพ ผู้ว่า ราชการ จังหวัด เชียงใหม่ กล่าว ว่า "
    "เศรษฐกิจ ปี นี้ ดี ขึ้น กว่า เดิม รัฐบาล สนับสนุน การ ศึกษา ของ เด็ก ทุก คน ใน โรงเรียน วัน จันทร์ "
    "เดือน มกราคม พุทธศักราช ข้าว ราคา บาท ต่อ กิโลกรัม ไม่ เป็น ปัญหา ให้ ประชาชน ได้ รับ บริการ"
)
_ENGLISH = (
    "the country has a large population and the water rose in the capital while governor said that "
    "economy is better than before government supports education of every child school monday january "
    "price of rice per kilogram is not problem for people who receive service don't it's"
)
THAI, ENGLISH = _THAI.split(), _ENGLISH.split()
THAI_SCRIPT = [(0x0E00, 0x0E7F)]


def thai(lines: int, seed: int = 0) -> list[str]:
    """Lines of Thai words run together, with a space now and then, numbers and a full stop."""
    draw = random.Random(seed)
    out = []
    for _ in range(lines):
        phrases = ["".join(draw.choices(THAI, k=draw.randint(2, 9))) for _ in range(4)]
        out.append(" ".join(phrases) + f" {draw.randint(1, 9999)}\n")
    return out


def english(lines: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(draw.choices(ENGLISH, k=12)) + f", {draw.randint(1, 99)}.\n" for _ in range(lines)
    ]


def by_dictionary(line: str) -> list[str]:
    """Longest match over THAI; everything else letter by letter. Joined, the words are the line."""
    words, place = [], 0
    longest_first = sorted(THAI, key=len, reverse=True)
    while place < len(line):
        found = next((word for word in longest_first if line.startswith(word, place)), line[place])
        words.append(found)
        place += len(found)
    return words


def shared() -> Path:
    """The folder of real data beside the repository; it need not exist."""
    beside = Path(__file__).parents[3] / "shared"
    return Path(os.environ.get("ENDONYM_SHARED", beside)) / "data"
