"""ToyWorld: exact probabilities against enumeration and sampling, labels against an independent reader."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmbook.toyworld import EOS, ImpossibleText, ToyWorld, expected_cooccurrence, pmi


def split(text):
    return text.split()


TINY, SMALL = ToyWorld("tiny"), ToyWorld("small")


@pytest.fixture(scope="module")
def everything():
    """All stories of the tiny world and their probabilities."""
    tokens, logprobs = zip(*TINY.enumerate(), strict=True)
    return list(tokens), np.exp(logprobs)


@pytest.fixture(scope="module")
def stories():
    return SMALL.stories(1200, seed=11)


# ------------------------------------------------------------------------------------- exact probabilities


def test_enumeration_covers_all_the_probability(everything):
    tokens, p = everything
    assert len({tuple(t) for t in tokens}) == len(tokens) > 1000
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert {word for t in tokens for word in t} == set(TINY.vocabulary) - {"<bos>"}
    assert len(TINY.vocabulary) >= 25


def test_conditionals_and_their_entropies_follow_from_the_enumeration(everything):
    """p(x | prefix) is mass(prefix x) / mass(prefix) at every prefix; their entropies add up to the story's."""
    mass = Counter()
    for tokens, p in zip(*everything, strict=True):
        for t in range(len(tokens) + 1):
            mass[" ".join(tokens[:t])] += p
    seen, conditional = set(), 0.0
    for tokens in everything[0]:
        prefixes = [" ".join(tokens[:t]) for t in range(len(tokens))]
        if prefixes[-1] in seen:
            continue
        for prefix, row in zip(prefixes, TINY.trace(tokens), strict=True):
            if prefix not in seen:
                seen.add(prefix)
                possible = np.flatnonzero(row)
                expected = [mass[f"{prefix} {TINY.vocabulary[i]}".strip()] / mass[prefix] for i in possible]
                assert np.abs(row[possible] - expected).max() < 1e-9
                assert abs(sum(expected) - 1) < 1e-9
                conditional -= mass[prefix] * (row[possible] @ np.log(row[possible]))
    p = everything[1]
    assert seen | {" ".join(t) for t in everything[0]} == set(mass)
    assert conditional == pytest.approx(-(p @ np.log(p)), abs=1e-9)
    rate = TINY.entropy_rate()
    assert rate.value == pytest.approx(conditional / (p @ [len(t) for t in everything[0]]), abs=1e-9)
    assert rate.standard_error == 0


@pytest.mark.parametrize("preset", ["small", "large"])
@pytest.mark.parametrize("dials", [{}, {"bias": 0.9, "noise": 0.1}, {"bias": 1.0}, {"bias": 0.0}])
def test_every_row_of_a_trace_is_a_distribution_and_agrees_with_the_story(preset, dials):
    world = ToyWorld(preset, **dials)
    for story in world.stories(30, seed=3):
        rows = world.trace(story.tokens)
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
        assert (rows >= 0).all()
        chosen = rows[np.arange(len(story.tokens)), world.encode(story.tokens)]
        np.testing.assert_allclose(np.log(chosen), story.logprobs, atol=1e-12)
        np.testing.assert_allclose(stats.entropy(rows, axis=1), story.entropies, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), noise=st.sampled_from([0.0, 0.2]))
def test_next_token_probs_at_any_prefix(seed, share, noise):
    world = ToyWorld("small", noise=noise)
    story = world.story(np.random.default_rng(seed))
    cut = int(share * (len(story.tokens) - 1))
    row = world.next_token_probs(story.tokens[:cut])
    assert row.sum() == pytest.approx(1, abs=1e-12)
    assert np.log(row[world.token_to_id[story.tokens[cut]]]) == pytest.approx(story.logprobs[cut], abs=1e-12)
    np.testing.assert_array_equal(row, world.trace(story.tokens)[cut])


# ---------------------------------------------------------------------------------------------- sampling


def test_hidden_tokens_have_the_probability_that_the_enumeration_gives_them(everything):
    """p(token | all others), by Bayes over every story that agrees with the rest."""
    tokens, p = everything
    rest_mass = Counter()
    for story, mass in zip(tokens, p, strict=True):
        for i in range(len(story)):
            rest_mass[(*story[:i], None, *story[i + 1 :])] += mass
    rng = np.random.default_rng(0)
    for k in rng.choice(len(tokens), 60, replace=False):
        story, i = tokens[k], rng.integers(len(tokens[k]))
        row = TINY.masked_token_probs([*story[:i], "anything", *story[i + 1 :]], i)
        expected = p[k] / rest_mass[(*story[:i], None, *story[i + 1 :])]
        assert row.sum() == pytest.approx(1, abs=1e-12)
        assert row[TINY.token_to_id[story[i]]] == pytest.approx(expected, rel=1e-9)


def test_a_hidden_token_may_be_settled_by_what_comes_later():
    people = "the nurse Kim is in the library . the farmer Tom is in the school ."
    text = split(f"it is Monday morning . {people} Kim leaves a red ball in the garden .")
    later = [*text, *split("she sees the ball in the garden .")]
    garden, t = SMALL.token_to_id["garden"], text.index("garden")
    assert SMALL.masked_token_probs(text, t)[garden] == pytest.approx(0.3)  # where a ball is usually left
    assert SMALL.masked_token_probs(later, t)[garden] == pytest.approx(1)
    with pytest.raises(ValueError, match=f"index must be from 0 to {len(text) - 1}, got {len(text)}"):
        SMALL.masked_token_probs(text, len(text))
    with pytest.raises(ValueError, match="no token fits at index 2"):
        SMALL.masked_token_probs(split("it is Monday noon ."), 2)


def test_sampled_stories_have_their_stated_frequencies(everything):
    """Chi-squared over 80 groups of stories, neighbours in the enumeration, of nearly equal probability."""
    tokens, p = everything
    group = dict(zip(map(" ".join, tokens), np.minimum(79, np.cumsum(p) * 80).astype(int), strict=True))
    expected = np.bincount(list(group.values()), weights=p)
    sample = TINY.stories(4000, seed=5)
    observed = np.bincount([group[story.text] for story in sample], minlength=80)
    assert stats.chisquare(observed, expected * len(sample)).pvalue > 1e-3


def test_every_word_comes_as_often_as_the_distributions_say(stories):
    """Counts minus expected counts are a martingale: standardised, they are normal for each word."""
    size = len(SMALL.vocabulary)
    counts, means, variances = np.zeros(size), np.zeros(size), np.zeros(size)
    for story in stories[:400]:
        rows = SMALL.trace(story.tokens)
        np.add.at(counts, SMALL.encode(story.tokens), 1)
        means += rows.sum(axis=0)
        variances += (rows * (1 - rows)).sum(axis=0)
    free = variances > 5
    z = (counts - means)[free] / np.sqrt(variances[free])
    assert free.sum() > 120
    assert np.abs(z).max() < 4.5
    assert 0.6 < z.std() < 1.4
    np.testing.assert_allclose(counts[variances < 1e-12], means[variances < 1e-12], atol=1e-9)


def test_stated_choices_in_the_text(stories):
    """How many are picked, and how often the first guess is right, counted in the words themselves."""
    text = " ".join(story.text for story in stories)
    picked = Counter(re.findall(r" picks (\w+) ", text))
    observed = [picked["one"], picked["two"], picked["three"]]
    assert stats.chisquare(observed, np.array([0.5, 0.3, 0.2]) * sum(observed)).pvalue > 1e-3
    right, wrong = text.count(" . it is there ."), text.count(" . it is not there .")
    assert stats.binomtest(right, right + wrong, 0.6).pvalue > 1e-3


def test_stated_probabilities_after_stated_texts():
    """The figures that the documentation gives, one by one, at texts where each of them can be seen."""
    opening = "it is Monday morning . the nurse Anna is in the hospital . the guard Tom is in the museum . "

    def after(text):
        return SMALL.next_token_dict(split(opening + text))

    def good(probs):
        return sum(p for word, p in probs.items() if word in SMALL.feelings[:4])

    gift = "Anna buys a red key . she gives the key to Tom . "
    assert after(gift)["she"] / (after(gift)["she"] + after(gift)["Anna"] + after(gift)["Tom"]) == pytest.approx(0.6)
    assert good({w: p / 0.9 for w, p in after(gift + "Tom is").items()}) == pytest.approx(1)
    assert good(after(gift + "Anna is")) == pytest.approx(0.5)
    assert good(after(gift + "they are")) == pytest.approx(0.9)
    assert after(gift + "that was a") == pytest.approx({"good": 0.7, "quiet": 0.2, "bad": 0.1})
    miss = "Anna leaves a red key in the garden . Tom looks for the key in the school . it is not"
    assert after(miss) == {"there": 1}
    assert good(after(miss + " there . Tom is")) == pytest.approx(0.1)
    left = "Anna leaves a red key in the garden . Tom looks for the key in the"
    assert after(left) == pytest.approx({p: 0.6 if p == "garden" else 0.4 / 7 for p in SMALL.places})
    assert after("Anna leaves a red key in the")["office"] == pytest.approx(0.3)  # where keys are kept
    known = after(left.replace("looks for the key in the", "asks Anna : where is the"))
    assert known["key"] == pytest.approx(0.85)
    unknown = after("Tom asks Anna : where is the key ? Anna says :")
    assert unknown == pytest.approx({"I": 0.7, "maybe": 0.3})


def test_the_floor_agrees_with_the_stories_own_surprise(stories):
    excess = np.array([-story.logprobs.sum() - story.entropies.sum() for story in stories])
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(stories))
    rate = SMALL.entropy_rate(n=400, seed=1)
    tokens = sum(len(story.tokens) for story in stories)
    surprise = -sum(story.logprobs.sum() for story in stories) / tokens
    noise = excess.std() * np.sqrt(len(stories)) / tokens
    assert abs(rate.value - surprise) < 4 * np.hypot(2 * rate.standard_error, noise)
    assert 0 < rate.standard_error < 0.02


def test_stories_have_the_stated_size(stories):
    lengths = [len(story.tokens) for story in stories]
    assert min(lengths) >= 30
    assert max(lengths) <= 128
    assert 150 <= len(SMALL.vocabulary) <= 300
    assert len(set(SMALL.vocabulary)) == len(SMALL.vocabulary)
    assert all(story.tokens[-1] == EOS and story.tokens.count(EOS) == 1 for story in stories)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_seed_settles_the_stories(seed):
    few, more = SMALL.stories(2, seed), SMALL.stories(3, seed)
    assert [s.tokens for s in few] == [s.tokens for s in more[:2]]
    assert SMALL.decode(SMALL.encode(few[0].tokens)) == few[0].tokens


# ------------------------------------------------------------------------------------------- long-range facts


def test_settled_tokens_are_certain_and_point_to_their_source(stories):
    kinds = Counter()
    for story in stories:
        for i, (token, kind, source) in enumerate(zip(story.tokens, story.kinds, story.sources, strict=True)):
            if kind == "choice":
                continue
            assert story.logprobs[i] == story.entropies[i] == 0
            kinds[kind] += 1
            if kind != "word":
                assert 0 <= source < i
            if kind in ("place", "day", "colour", "person"):
                assert story.tokens[source] == token or (kind == "person" and story.tokens[source] in ("she", "he"))
            if kind == "agreement":
                assert (token == "are") == story.tokens[source].endswith("s")
    assert kinds.keys() == {"word", "place", "day", "colour", "person", "agreement", "thing", "count", "gender"}
    assert min(kinds.values()) >= 30
    distances = [i - s.sources[i] for s in stories for i, kind in enumerate(s.kinds) if kind == "place"]
    assert np.mean(np.array(distances) > 8) > 0.5  # most lie further back than a 5-gram sees


# --------------------------------------------------------------------------- labels and an independent reader


class Reader:
    """Reads the English text with regular expressions and keeps its own books: shares no code with ToyWorld."""

    NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    GLAD = ("happy", "proud", "calm", "excited", "cheerful", "grateful", "relaxed", "brave")
    SHOWN = ("laugh", "sing", "dance", "smile")

    def __init__(self, text):
        self.job, self.place, self.holder, self.colour = {}, {}, {}, {}
        self.feels, self.mood, self.count, self.turns = {}, {}, Counter(), []
        self.topic = self.guessed = None
        for sentence in re.findall(r"[^.?]+[.?]", text.replace(EOS, "")):
            self.read(re.sub(r"^(then|later) ", "", sentence.strip()))

    def read(self, sentence):
        for pattern, action in self.RULES:
            if found := re.fullmatch(pattern, sentence):
                return action(self, *found.groups())
        raise AssertionError(f"cannot read {sentence!r}")

    def subject(self, word):
        self.topic = self.topic if word in ("she", "he") else word
        return self.topic

    def meet(self, job, name, place):
        self.job[name], self.place[self.subject(name)] = job, place
        self.mood[name] = "neutral"

    def go(self, who, place):
        for name in self.job if who == "they" else [self.subject(who)]:
            self.place[name] = place
        self.topic = None if who == "they" else self.topic

    def buy(self, who, colour, thing):
        self.colour[thing], self.holder[thing] = colour, self.subject(who)

    def leave(self, who, colour, thing, place):
        who = self.subject(who)
        if colour:
            self.colour[thing] = colour
        else:
            assert self.holder.pop(thing) == who
        self.place[thing] = self.place[who] = place

    def give(self, who, thing, other):
        assert self.holder[thing] == self.subject(who)
        self.holder[thing] = other

    def find(self, who, thing, place):
        assert self.place.pop(thing) == place
        self.holder[thing] = self.subject(who)
        self.place[self.topic] = place

    def see(self, who, thing, place):
        assert self.place[thing] == place
        self.place[self.subject(who)] = place

    def guess(self, who, thing, place):
        self.place[self.subject(who)], self.guessed = place, (thing, place)

    def outcome(self, no):
        thing, place = self.guessed
        assert (self.place[thing] == place) == (not no)
        if not no:
            self.holder[thing] = self.topic
            del self.place[thing]

    def pick(self, who, verb, n, fruit):
        sign = 1 if verb == "picks" else -1
        assert (n == "one") == (not fruit.endswith("s"))
        plural = fruit if fruit.endswith("s") else re.sub("y$", "ie", fruit) + "s"
        self.count[self.subject(who), plural] += sign * self.NUMBERS.index(n)

    def tally(self, who, fruit, n):
        assert self.count[self.subject(who), fruit] == self.NUMBERS.index(n)

    def feel(self, who, feeling):
        for name in self.job if who == "they" else [self.subject(who)]:
            self.feels[name] = feeling
            self.mood[name] = (
                "positive" if feeling in self.GLAD or feeling.removesuffix("s") in self.SHOWN else "negative"
            )
        self.topic = None if who == "they" else self.topic

    def act(self, who, act):
        before = dict(self.feels)
        self.feel(who, act)
        self.feels = before

    def ask(self, who, other, question):
        self.turns.append((self.subject(who), other, question))

    def say(self, who, answer):
        asker, asked, question = self.turns[-1][:3]
        if answer != "thank you .":
            assert who == asked
        self.turns.append((self.subject(who), asker if who == asked else asked, answer))
        if question.startswith("where is the"):
            self.check_place(question.split()[3], answer, who)
        elif found := re.fullmatch(r"how many (\w+) do you have \?", question):
            said = answer.split()[2]
            assert self.count[who, found[1]] == self.NUMBERS.index(said)
        elif found := re.fullmatch(r"what colour is the (\w+) \?", question):
            assert answer == f"it is {self.colour[found[1]]} ."
        elif found := re.fullmatch(r"please give me the (\w+) \.", question):
            if answer.startswith("here"):
                assert self.holder[found[1]] == who
                self.holder[found[1]] = asker
        elif found := re.fullmatch(r"will you come to the (\w+) with me \?", question):
            if answer.startswith("yes"):
                self.place[who] = self.place[asker] = found[1]
            else:
                self.feels[who], self.mood[who] = "tired", "negative"

    def check_place(self, thing, answer, who):
        if thing in self.place:
            assert answer == f"it is in the {self.place[thing]} ."
        elif thing in self.holder:
            assert answer == ("I have it ." if self.holder[thing] == who else f"{self.holder[thing]} has it .")
        else:
            assert re.fullmatch(r"I do not know \.|maybe in the \w+ \.", answer)

    def begin(self, day):
        self.day = day

    def end(self, day):
        assert day == self.day

    def scene(self, noun, verb):
        assert (verb == "are") == noun.endswith("s")
        self.topic = None

    RULES = (
        (r"it is (\w+) (?:morning|evening|afternoon) \.", begin),
        (r"the (\w+) (\w+) is in the (\w+) \.", meet),
        (r"(\w+) (?:goes|walks|runs|go) to the (\w+) \.", go),
        (r"(\w+) travels to (\w+) \.", go),
        (r"(\w+) buys a (\w+) (\w+) \.", buy),
        (r"(\w+) leaves (?:the|a (\w+)) (\w+) in the (\w+) \.", leave),
        (r"(\w+) gives the (\w+) to (\w+) \.", give),
        (r"(\w+) looks for the (\w+) and finds it in the (\w+) \.", find),
        (r"(\w+) sees the (\w+) in the (\w+) \.", see),
        (r"(\w+) looks for the (\w+) in the (\w+) \.", guess),
        (r"it is (not )?there \.", outcome),
        (r"(\w+) (picks|eats) (\w+) (\w+) \.", pick),
        (r"(\w+) counts (?:her|his) (\w+) : (\w+) \.", tally),
        (r"(\w+) (?:is|are) (\w+) \.", feel),
        (r"(\w+) (\w+) \.", act),
        (r"the (\w+) near the \w+ behind the \w+ (is|are) \w+ \.", scene),
        (r"(\w+) asks (\w+) : (.+)", ask),
        (r"(\w+) says : (.+)", say),
        (r"that was a \w+ (\w+) \.", end),
    )


def clean(tokens):
    """The text without fillers."""
    return " ".join(token for token in tokens if token not in ("um", "er", "hm", "uh"))


@pytest.mark.parametrize("preset", ["small", "large"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_facts_agree_with_an_independent_reader(preset, noise):
    for story in ToyWorld(preset, bias=0.8, noise=noise).stories(250, seed=2):
        read = Reader(clean(story.tokens))
        expected = {("story", "day", read.day)}
        expected |= {(p, "works_as", job) for p, job in read.job.items()}
        expected |= {(x, "is_in", place) for x, place in read.place.items()}
        expected |= {(p, "has", thing) for thing, p in read.holder.items()}
        expected |= {(thing, "has_colour", colour) for thing, colour in read.colour.items()}
        expected |= {(p, "feels", feeling) for p, feeling in read.feels.items()}
        names = ("zero", *Reader.NUMBERS[1:])
        expected |= {(p, f"number_of_{fruit}", names[n]) for (p, fruit), n in read.count.items()}
        assert {(r.subject, r.relation, r.object) for r in story.relations} == expected
        assert story.sentiment == read.mood
        spoken = [clean(story.tokens[turn.start : turn.end]) for turn in story.dialogue]
        assert [(d.speaker, d.listener, s) for d, s in zip(story.dialogue, spoken, strict=True)] == read.turns


def test_questions_are_answered_by_the_token_they_point_to(stories):
    for story in stories[:300]:
        read = Reader(clean(story.tokens))
        known = {f"where is {t} ?": p for t, p in read.place.items()}
        known |= {f"where is the {t} ?": p for t, p in read.place.items() if t not in read.job}
        known |= {f"who has the {t} ?": p for t, p in read.holder.items()}
        for q in story.questions:
            assert known.get(q.question, q.answer) == q.answer
            assert story.events[max(0, q.event - 1)].start <= q.token < story.events[q.event].end
            assert q.token >= story.events[q.event].start or story.events[q.event].kind in ("grant", "accept", "hit")
            if not q.question.startswith(("how many", "who has")):
                assert story.tokens[q.token] == q.answer
            assert all(word in SMALL.token_to_id for word in q.question.split())
        assert {q.question for q in story.questions if q.question.startswith("who has")} == {
            f"who has the {thing} ?" for thing in read.holder
        }


def test_entities_are_typed_by_their_context(stories):
    """Jordan travels, and is travelled to; the spans cover the words that the types are known by."""
    senses = Counter()
    for story in stories:
        spans = {(e.start, e.end): e for e in story.entities}
        assert len(spans) == len(story.entities)
        covered = {i: e.type for e in story.entities for i in range(e.start, e.end)}
        for i, token in enumerate(story.tokens):
            if token in SMALL.places:
                assert covered[i] == "PLACE"
            if token in SMALL.towns or token in SMALL.names_open:
                assert covered[i] == ("TOWN" if story.tokens[i - 2] == "travels" else "PERSON")
                senses[token, covered[i]] += 1
            if token in SMALL.things:
                assert covered[i] == "THING"
                assert (story.tokens[i - 1] in SMALL.colours) == (covered.get(i - 1) == "THING")
            if token in SMALL.days:
                assert covered[i] == "DATE"
    for name in ("Jordan", "Florence"):
        assert senses[name, "TOWN"] > 3
        assert senses[name, "PERSON"] > 3


def test_summary_names_people_and_is_made_of_true_sentences(stories):
    for story in stories[:300]:
        text = " ".join(story.summary)
        assert not {"she", "he"} & set(story.summary)
        assert 1 <= text.count(" .") <= 3
        assert re.search(r"that was a \w+ \w+ \.$", text)
        assert len(story.summary) < len(story.tokens) / 1.2
        for sentence in text.split(" ."):
            tail = sentence.split()[1:]
            assert " ".join(tail) in story.text


# --------------------------------------------------------------------------------------------------- Chinese

PARTICLES = {"了", "的", "里", "把", "个", "对", "就", "数", "在", "些", "吗", "一起", "，", "给", "到", "后面", "旁边"}


@pytest.mark.parametrize("preset", ["small", "large", "tiny"])
def test_chinese_says_the_same_and_is_aligned(preset):
    world = ToyWorld(preset)
    for story in world.stories(200, seed=4):
        chinese = story.chinese
        assert re.fullmatch(r"[\u4e00-\u9fff。，：？]+", chinese.text)
        assert chinese.text.count("。") + chinese.text.count("？") == story.text.count(" .") + story.text.count("?")
        left, right = {i for i, _ in chinese.alignment}, {j for _, j in chinese.alignment}
        assert right <= set(range(len(chinese.tokens)))
        alone = {chinese.tokens[j] for j in set(range(len(chinese.tokens))) - right}
        assert alone <= PARTICLES | set("颗朵")  # measure words of a fruit that only the question named
        content = {i for e in story.entities for i in range(e.start, e.end)}
        content |= {i for i, t in enumerate(story.tokens) if t in ("she", "he", "they", "her", "his", "then", ".", "?")}
        assert content <= left


def test_chinese_reads_well():
    """Sentences that a Chinese reader has gone through: measure words, 把, senses, order."""
    tokens = split("""
        it is Monday morning . the nurse Anna is in the hospital . the guard Jordan is in the museum .
        she leaves a red key in the garden . Anna travels to Jordan . the bird near the house behind the
        walls is big . Anna picks two cherries . Anna counts her cherries : two . Jordan asks Anna :
        where is the key ? Anna says : it is in the garden . they are happy . that was a good Monday .
        <eos>
    """)
    assert ToyWorld("small").replay(tokens).chinese.text == (
        "这是星期一的早上。护士安娜在医院里。保安乔丹在博物馆里。她在花园里留下了一把红色的钥匙。安娜去约旦旅行。"
        "墙后面的房子旁边的那只鸟很大。安娜采摘了两颗樱桃。安娜数了数她的樱桃：两颗。乔丹问安娜：钥匙在哪里？"
        "安娜说：它在花园里。她们很高兴。那是一个美好的星期一。"
    )


# ----------------------------------------------------------------------------------------------------- dials


@pytest.mark.parametrize("bias", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_bias_is_the_probability_of_the_stereotyped_pronoun(bias):
    world = ToyWorld("tiny", bias=bias)
    for job, expected in (("nurse", bias), ("farmer", 1 - bias)):
        probs = world.next_token_dict(f"it is Monday morning . the {job} Kim is in the hospital .".split())
        she, he = probs.get("she", 0), probs.get("he", 0)
        assert she / (she + he) == pytest.approx(expected, abs=1e-12)
        names = world.next_token_dict(f"it is Monday morning . the {job}".split())
        women = names.get("Anna", 0) + expected * names["Kim"]
        assert women == pytest.approx(expected, abs=1e-12)


def test_gender_stays_once_it_is_settled(stories):
    """Per person only one of she/her and he/his: an independent look at the words."""
    for story in ToyWorld("small", bias=0.7).stories(200, seed=9):
        seen = {}
        for event in story.events:
            for slot in ("who", "poss"):
                token = story.tokens[event.at[slot]] if event.at.get(slot, -1) >= event.start else ""
                if token in ("she", "her", "he", "his"):
                    gender = token in ("she", "her")
                    assert seen.setdefault(event.slots["who"], gender) == gender
        names = {name: name in SMALL.names_she for name in (*SMALL.names_she, *SMALL.names_he)}
        assert all(names.get(person, gender) == gender for person, gender in seen.items())


def test_noise_mixes_in_fillers_exactly():
    noisy = ToyWorld("small", noise=0.2)
    assert noisy.vocabulary[: len(SMALL.vocabulary)] == SMALL.vocabulary
    kept, total = 0, 0
    for story in noisy.stories(100, seed=6):
        plain = [t for t in story.tokens if t not in ("um", "er", "hm", "uh")]
        fillers = len(story.tokens) - len(plain)
        if len(plain) <= SMALL.size.max_tokens < len(story.tokens):
            continue  # fillers count towards the length at which a story must end
        expected = np.log(0.05) * fillers + np.log(0.8) * len(plain)
        if len(story.tokens) <= SMALL.size.max_tokens:
            assert story.logprobs.sum() == pytest.approx(SMALL.replay(plain).logprobs.sum() + expected, abs=1e-9)
            kept += 1
        total += fillers / len(story.tokens)
    assert kept > 20
    row = noisy.next_token_dict(["it", "um", "is"])
    assert row["um"] == pytest.approx(0.05)
    assert row["Monday"] == pytest.approx(0.8 / 7)


def test_canary_is_planted_as_often_as_asked():
    secret = SMALL.canary(np.random.default_rng(3), digits=5)
    assert not SMALL.is_possible(secret)
    texts = SMALL.corpus(50, seed=1, canary=secret, copies=7)
    assert len(texts) == 57
    assert texts.count(secret) == 7
    assert [t for t in texts if t != secret] == [s.tokens for s in SMALL.stories(50, seed=1)]
    assert SMALL.corpus(5, seed=1) == [s.tokens for s in SMALL.stories(5, seed=1)]
    digits = Counter(d for s in range(300) for d in SMALL.canary(np.random.default_rng(s))[4:8])
    assert len(digits) == 10
    assert stats.chisquare(list(digits.values())).pvalue > 1e-3


# --------------------------------------------------------------------------------------- the impossible, errors


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), position=st.floats(0, 1), word=st.integers(0, 10**6))
def test_a_corrupted_token_is_where_the_text_breaks(seed, position, word):
    story = SMALL.story(np.random.default_rng(seed))
    assert SMALL.is_possible(story.tokens)
    assert SMALL.is_possible(story.tokens).complete
    index = int(position * (len(story.tokens) - 1))
    impossible = np.flatnonzero(SMALL.trace(story.tokens)[index] == 0)
    token = SMALL.vocabulary[impossible[word % len(impossible)]]
    verdict = SMALL.is_possible([*story.tokens[:index], token, *story.tokens[index + 1 :]])
    assert not verdict
    assert (verdict.index, verdict.token) == (index, token)
    assert verdict.why


def test_a_wrong_fact_is_named():
    text = split("""
        it is Monday morning . the nurse Anna is in the hospital . the guard Tom is in the museum . Anna
        leaves a red key in the garden . Tom looks for the key and finds it in the office .
    """)
    verdict = SMALL.is_possible(text)
    assert (text[verdict.index], verdict.index) == ("office", len(text) - 2)
    assert f"place is settled as 'garden' by token {text.index('garden')}" in verdict.why
    assert SMALL.is_possible(text[: verdict.index])
    assert not SMALL.is_possible(text[: verdict.index]).complete


def test_text_after_the_end(stories):
    tokens = stories[0].tokens
    verdict = SMALL.is_possible([*tokens, "it"])
    assert verdict.index == len(tokens)
    assert "ended" in verdict.why
    with pytest.raises(ValueError, match="whole story"):
        SMALL.next_token_probs(tokens)
    assert SMALL.next_token_dict([]) == {"it": 1.0}
    assert SMALL.is_possible([])
    assert SMALL.trace([]).shape == (0, len(SMALL.vocabulary))
    assert SMALL.replay([]).events == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "huge"}, "preset must be one of .*'huge'"),
        ({"bias": 1.5}, "bias must be .* got 1.5"),
        ({"bias": float("nan")}, "bias must be"),
        ({"noise": 1.0}, "noise must be"),
        ({"noise": -0.1}, "noise must be"),
    ],
)
def test_bad_dials(arguments, message):
    with pytest.raises(ValueError, match=message):
        ToyWorld(**arguments)


def test_bad_texts_and_arguments():
    with pytest.raises(ImpossibleText, match="'wombat': is not a word of this world"):
        SMALL.next_token_probs(["it", "is", "wombat"])
    with pytest.raises(ValueError, match="'wombat'"):
        SMALL.encode(["wombat"])
    with pytest.raises(ValueError, match="cannot follow '… it is'; possible: Monday"):
        SMALL.trace(["it", "is", "it"])
    with pytest.raises(ValueError, match="only the tiny preset"):
        SMALL.enumerate()
    with pytest.raises(ValueError, match="only the tiny preset"):
        ToyWorld("tiny", noise=0.1).enumerate()
    with pytest.raises(ValueError, match="digits must be"):
        SMALL.canary(np.random.default_rng(0), digits=0)
    with pytest.raises(ValueError, match="tiny preset has no words"):
        TINY.canary(np.random.default_rng(0))
    with pytest.raises(ValueError, match="copies must be"):
        SMALL.corpus(1, 0, copies=2)
    with pytest.raises(ValueError, match="'wombat'"):
        SMALL.corpus(1, 0, canary=["wombat"], copies=1)
    with pytest.raises(ValueError, match="n must be at least 2"):
        SMALL.entropy_rate(n=1)
    with pytest.raises(ValueError, match="window must be"):
        expected_cooccurrence(TINY, 0)
    with pytest.raises(ValueError, match="counts must be"):
        pmi(np.zeros((2, 2)))


# ------------------------------------------------------------------------------------------------- known PMI


def test_expected_cooccurrence_agrees_with_sampling():
    window, n = 3, 3000
    expected = expected_cooccurrence(TINY, window)
    counts = np.zeros((n, *expected.shape))
    for k, story in enumerate(TINY.stories(n, seed=8)):
        ids = TINY.encode(story.words)
        for i, centre in enumerate(ids):
            for j in range(max(0, i - window), min(len(ids), i + window + 1)):
                counts[k, centre, ids[j]] += i != j
    error = counts.std(axis=0) / np.sqrt(n)
    frequent = expected > 0.01
    assert frequent.sum() > 100
    assert (np.abs(counts.mean(axis=0) - expected)[frequent] <= 4.5 * error[frequent] + 1e-9).all()
    np.testing.assert_allclose(expected, expected.T)
    assert (expected[TINY.token_to_id[EOS]] == 0).all()


def test_pmi_of_counts():
    np.testing.assert_allclose(pmi(np.outer([1, 3], [1, 3])), 0, atol=1e-12)
    values = pmi(np.array([[0.0, 1, 0], [1, 2, 0], [0, 0, 0]]))
    assert values[0, 1] == pytest.approx(np.log((1 / 4) / (1 / 4 * 3 / 4)))
    assert np.isneginf(values[0, 0])
    assert not np.isnan(values).any()
