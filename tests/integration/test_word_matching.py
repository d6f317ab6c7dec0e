"""The client finds words of word lists as the server does, so that what it lets through no server refuses."""

import valuescope as vs
from valuescope.word_matching import occurs

TEXTS = [
    "A thrill's worth; thrilling, enthrilled, thrill2 and 2thrill.",
    "STRASSE",
    "e\u0301 cafe\u0301 café",
    "我们的传统很好",
    "İstanbul ISTANBUL ıstanbul",
    "fun-loving fun_loving",
    "own\n\tpath",
    "ΣΊΣΥΦΟΣ",
    "ﬁne",
    "\u200bRisk-taking is daring: an adventurous, RICH life of wealth and leisure.",
    "Be safe, be kind-hearted, keep the rules and the old ways; all that is fair.",
    "เที่ยวสนุก",
    "banana an",
]
ENTRIES = ["thrill", "thrill*", "straße", "é", "e", "cafe", "传统", "istanbul", "own path", "fun", "fine", "σίσυφος", "สนุก", "an", "a*"]  # fmt: skip


def test_client_and_server_find_the_same_words(client):
    ours = [value.label_words + value.score_words for value in vs.study_data().values.values()]
    entries = [*ENTRIES, *(word for words in ours for word in words[::3])]
    responses = [vs.unlabelled("q", text) for text in TEXTS]
    found = 0
    for entry in entries:
        judged = client.judge_responses(responses, vs.WordList([entry])).expresses
        assert [occurs(entry, text) for text in TEXTS] == judged.tolist(), entry
        found += judged.sum()
    assert found > 20
