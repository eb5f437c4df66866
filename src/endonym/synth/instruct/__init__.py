"""AutoIF for a language: instructions with a constraint that a program can check, and replies that obey.

AutoIF (arXiv:2406.13542) as Typhoon-S released it for Thai (shared METHODS 2.4), for any language, in
its nine steps. A `chat` is whatever answers messages; without one the packed pool and rules stand in.

    step                            file                  with a model               without
    1 pool of constraints           pool.py               packed, and more asked     packed
    2 verifiers and test cases      verifiers.py          asked                      written by hand
    3 cross-validation              cross_validation.py   in the sandbox             -
    4 back-translation              back_translation.py   asked                      -
    5 contradiction                 back_translation.py   asked                      -
    6 composition with queries      composition.py        every constraint           what fits
    7 generation                    generation.py         k responses                editing.py: the known
                                                                                     reply, by rule
      verification, foreign script  verification.py       yes                        yes
    8 judge                         judging.py            0 to 10                    -
    9 placement, translation        emission.py           translated by the model    another pack's words

Every step adds to one table of counts: steps[step][reason].
"""
