"""What a reader of scores is told of a figure, from its key."""

from endonym.stages.evaluate import _column


def test_a_label_may_be_anything():
    """Also a word with the sign that parts the key, and a short one that is no language."""
    titles = {
        "bpb_th": "Thai text",
        "bpb_web": "web text",
        "bpb_my_text": "my_text text",
        "answers_ko": "Korean answers",
        "language_th_sampled": "Thai only T=0.7",
        "language_my_text": "my_text only",
        "needle_min": "Needles, worst cell",
        "needle_512": "Needles at 512",
    }
    assert {key: _column(key, 0.7).title for key in titles} == titles
