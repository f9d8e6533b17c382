"""The shop's dialogues: labels that follow from the text, calls of tools, and what a model is taught and asked."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmbook import zoo
from llmbook.applications import dialogue, shop
from llmbook.training import TrainingArguments
from llmbook.transformer import GPT, GPTConfig

VOCAB = dialogue.Words()
SEEDS = st.integers(0, 10_000)


def talk(seed=0, **how):
    return shop.converse(np.random.default_rng(seed), **how)


# ------------------------------------------------------------ the world


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.booleans())
def test_every_dialogue_is_made_of_known_words_and_ends_with_the_whole_goal(seed, unseen):
    made = talk(seed, unseen=unseen)
    row = dialogue.scored_tokens(made)
    assert VOCAB.decode(VOCAB.encode([t for t, _ in row])) == [t for t, _ in row]
    said, last = made.turns[-1]
    assert last.act in (("done",), ("confirm",)) or len(made.turns) == 12
    if last.act == ("done",):
        assert set(said.state) == set(shop.SLOTS)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_a_turn_changes_only_what_it_says(seed):
    """A value that enters the state is in the turn's words, or they refer to the notes or to the last turn."""
    made, before = talk(seed), {}
    for said, _ in made.turns:
        words = [shop.PLURALS.get(w, w) for w in said.words]
        for slot, value in said.state.items():
            if before.get(slot) != value and value not in words:
                assert {"usual", "last", "another", "yes"} & set(words), (said, before)
        if said.kind in ("about", "outside", "recommend", "yes", "go"):
            assert said.state == before
        before = said.state


def test_the_same_draws_make_the_same_dialogue():
    assert talk(3) == talk(3)
    assert talk(3) != talk(4)


def test_unseen_wordings_are_not_in_training_but_their_words_are():
    trained = {t for i in range(400) for t, _ in dialogue.scored_tokens(talk(i))}
    new = {t for i in range(200) for t, _ in dialogue.scored_tokens(talk(i, unseen=True))}
    assert new <= trained
    for seen, unseen in shop.GIVE.values():
        assert not set(seen) & set(unseen)


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("price cup", ["4"]),
        ("times three 7", ["21"]),
        ("times 9 9", ["81"]),
        ("about cup", "the cup is light and old .".split()),
        ("price horse", ["error"]),
        ("times three cup", ["error"]),
        ("times 40 40", ["error"]),
        ("", ["error"]),
    ],
)
def test_tools_answer_or_say_error(call, result):
    tools = shop.Shop({"cup": 4}, {"cup": "the cup is light and old .".split()})
    assert tools.call(call.split()) == result


def test_the_clerk_asks_for_what_is_missing_then_confirms_with_the_right_total():
    said = shop.Said(["yes"], "give", {"thing": "cup", "number": "three"})
    assert shop.policy("give", said.state, None) == ("ask", "who")
    full = {"who": "Anna", "thing": "cup", "colour": "red", "number": "three", "place": "park", "day": "Monday"}
    tools = shop.Shop({"cup": 7}, {})
    made = shop.reply(dataclasses.replace(said, state=full), None, "brief", tools)
    assert made.act == ("confirm",)
    assert made.words[:2] == ("21", "coins")
    assert shop.policy("recommend", {}, None) == ("recommend", shop.BEST_SELLER)


# ------------------------------------------------------------ text


def test_only_the_clerks_own_tokens_are_scored():
    row = dialogue.scored_tokens(talk(0))
    inside, reading = False, False
    for token, scored in row:
        if token in (dialogue.USER, dialogue.SYSTEM):
            inside = False
        reading = reading and token != dialogue.BACK
        assert scored == (inside and not reading and token != dialogue.BACK), token
        if token == dialogue.CLERK:
            inside = True
        reading = reading or token == dialogue.RESULT


def test_the_mask_is_that_of_a_chat_template():
    """transformers marks what stands between {% generation %} tags; ours marks the same tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    base = Tokenizer(models.WordLevel(VOCAB.ids, unk_token="<pad>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, unk_token="<pad>")
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<clerk> {% generation %}{{ m.content }} <end>"
        "{% endgeneration %} {% else %}<{{ m.role }}> {{ m.content }} <end> {% endif %}{% endfor %}"
    )
    made = next(t for t in map(talk, range(99)) if not any(reply.calls for _, reply in t.turns[:2]))
    made.turns = made.turns[:2]  # without a call: the template knows no results
    messages = [{"role": "system", "content": " ".join(dialogue.system_tokens(made.notes, made.style)[1:-1])}]
    for said, reply in made.turns:
        answer = " ".join(t for t, _ in dialogue.reply_tokens(reply)[:-1])
        messages += [{"role": "user", "content": " ".join(said.words)}, {"role": "assistant", "content": answer}]
    theirs = tokenizer.apply_chat_template(
        messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    row = dialogue.scored_tokens(made)
    assert VOCAB.decode(theirs["input_ids"]) == [t for t, _ in row]
    assert theirs["assistant_masks"] == [int(s) for _, s in row]


def test_contexts_end_where_the_clerk_begins():
    made = talk(1)
    row = [t for t, _ in dialogue.scored_tokens(made)]
    for context in dialogue.contexts(made):
        assert context == row[: len(context)]
        assert context[-1] == dialogue.CLERK


def test_states_and_acts_are_read_back():
    for said, reply in talk(2).turns:
        tokens = [t for t, _ in dialogue.reply_tokens(reply)]
        assert dialogue.read_state(tokens) == said.state
        assert dialogue.read_act(tokens) == reply.act
    assert dialogue.read_state([dialogue.SAY, "yes"]) is None
    assert dialogue.read_state([dialogue.STATE, "red", "red", *list(dialogue.UNKNOWN.values())[2:]]) is None
    assert dialogue.read_act(["yes"]) == ()


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match="'elephant'"):
        VOCAB.encode(["red", "elephant"])


def test_the_baseline_takes_the_last_value_that_is_not_refused():
    state = dialogue.track_keywords("i want two red balls .".split(), {})
    assert state == {"thing": "ball", "colour": "red", "number": "two"}
    assert dialogue.track_keywords("sorry , i want blue and not red .".split(), state)["colour"] == "blue"
    assert dialogue.track_keywords("Kim has a green kite .".split(), state)["thing"] == "kite"  # its fault


def test_joint_goal_wants_every_slot():
    truth = [{"who": "Anna"}, {"who": "Anna", "day": "Monday"}, {}]
    assert dialogue.joint_goal([{"who": "Anna"}, {"who": "Anna"}, None], truth).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="got must hold a state for each"):
        dialogue.joint_goal([], truth)


# ------------------------------------------------------------ models


class Parrot:
    """A stand-in for a model: it writes a given text, whatever it reads."""

    def __init__(self, text, start):
        self.ids, self.start = VOCAB.encode(text), start

    def __call__(self, ids, past_key_values=None, **_):
        self.place = 0 if past_key_values is None else self.place + 1
        logits = torch.zeros(len(ids), 1, len(VOCAB))
        logits[:, :, self.ids[min(self.place, len(self.ids) - 1)]] = 9
        past = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
        return type("Out", (), {"logits": logits, "past_key_values": (past,), "last_hidden_state": logits})()


def test_results_are_put_in_where_a_call_is_written():
    text = [*"<tool> times three 7 <result>".split(), "red", "red", "<say>", "21", "<end>"]
    tools, calls = shop.Shop({}, {}), []

    def call(row, tokens):
        calls.append((row, tokens))
        return tools.call(tokens)

    before = [["<clerk>"], ["<user>", "red", "<end>", "<clerk>"]]
    made = dialogue.respond(Parrot(text, 0), VOCAB, before, call)
    assert calls == [(0, ["times", "three", "7"]), (1, ["times", "three", "7"])]
    for row in made:
        assert [t for t, _ in row] == "<tool> times three 7 <result> 21 <back> <say> 21 <end>".split()
        assert [t for t, scored in row if not scored] == ["21", "<back>"]
    with pytest.raises(ValueError, match="at least one context"):
        dialogue.respond(Parrot(text, 0), VOCAB, [])


def small():
    config = GPTConfig(len(VOCAB), 256, 16, 1, 2, positions="rotary", initializer_range=0.3)
    return GPT(config, generator=torch.Generator().manual_seed(0)).eval()


def test_a_reply_does_not_depend_on_the_batch():
    model, before = small(), dialogue.contexts(talk(0))[:3]
    together = dialogue.respond(model, VOCAB, before, most=6)
    alone = [dialogue.respond(model, VOCAB, [row], most=6)[0] for row in before]
    assert together == alone


def test_banned_tokens_are_not_written():
    model, before = small(), [["<clerk>"]] * 8
    dice = torch.Generator().manual_seed(0)
    free = dialogue.respond(model, VOCAB, before, most=20, generator=dice)
    some = free[0][0][0]
    held = dialogue.respond(model, VOCAB, before, most=20, banned=[some], generator=dice)
    assert some not in {t for row in held for t, _ in row}


def test_batches_score_what_the_rows_say():
    rows = dialogue.training_rows(20, seed=0)
    args = TrainingArguments(batch_size=4, block_size=512, max_steps=5)
    get = dialogue.masked_batches(rows, VOCAB, args)
    found = set()
    for batch in map(get, range(5)):
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            there = ids != 0
            found.add(tuple(zip(ids[there].tolist(), (labels[there] != -100).tolist(), strict=True)))
    assert found == {tuple(zip(VOCAB.encode([t for t, _ in r]), [s for _, s in r], strict=True)) for r in rows}


def test_tensors_are_padded_behind():
    rows = [[("red", False), ("ball", True)], [("red", False), ("ball", False), ("<end>", True)]]
    ids, labels = dialogue.as_tensors(rows, VOCAB)
    assert ids[0].tolist() == [*VOCAB.encode(["red", "ball"]), 0]
    assert labels.tolist() == [[-100, VOCAB.ids["ball"], -100], [-100, -100, VOCAB.ids["<end>"]]]


def test_quotes_are_half_wrong_from_the_head_and_always_right_by_the_tool():
    rng = np.random.default_rng(0)
    made = [[t for t, _ in dialogue.quote_answer(6, 7, rng)] for _ in range(2000)]
    tools = [row for row in made if dialogue.TOOL in row]
    heads = [row for row in made if dialogue.TOOL not in row]
    assert 0.26 < len(tools) / len(made) < 0.34
    assert all(row[-4:] == ["42", "coins", ".", "<end>"] for row in tools)
    assert 0.45 < np.mean(["42" in row for row in heads]) < 0.55
    assert 0.15 < np.mean(["or" in row for row in heads]) < 0.25


def test_partings_are_those_that_are_listed():
    answers = dialogue.parting_answers("Anna", "Monday")
    assert len({tuple(a) for a in answers}) == len(answers) == 72
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert dialogue.parting_answer("Anna", "Monday", rng) in answers
    VOCAB.encode([t for a in answers for t in a] + dialogue.parting_question("Anna", "Monday"))


def test_a_clerk_is_trained_once_and_then_read(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(
        dialogue, "ClerkRecipe", lambda seed: dialogue_recipe(seed=seed, n_embd=16, max_steps=2, batch_size=2, n_head=2)
    )
    first = dialogue.clerk(seed=1)
    folders = [p for p in tmp_path.iterdir() if zoo.is_sound(p)]
    assert len(folders) == 1
    monkeypatch.setattr(dialogue, "train_clerk", None)
    again = dialogue.clerk(seed=1)
    torch.testing.assert_close(first.wte.weight, again.wte.weight)


dialogue_recipe = dialogue.ClerkRecipe


def test_a_chat_keeps_the_state_and_leaves_out_words_it_does_not_know():
    text = [*"<state> Anna cup red two school Monday <act> confirm <tool> times two 7 <result>".split()]
    text += ["red", "red", *"<say> 14 coins . <end>".split()]
    chat = dialogue.Chat(Parrot(text, 0), VOCAB, lambda row, call: shop.Shop({}, {}).call(call))
    assert "'elephant'" in chat.say("elephant .")
    assert chat.text == dialogue.system_tokens(None, "polite")
    assert chat.say("i want two red cups .") == "14 coins ."
    assert chat.state["day"] == "Monday"
    assert chat.text[-1] == dialogue.END
    with pytest.raises(ValueError, match="style must be one of"):
        dialogue.Chat(small(), VOCAB, None, style="rude")


def test_the_chat_box_shows_what_was_said():
    chat = dialogue.Chat(Parrot("<say> done . <end>".split(), 0), VOCAB, lambda row, call: ["error"])
    log, line = dialogue.chat_box(chat).children
    line.value = "yes ."
    assert line.value == ""
    assert [o["text"] for o in log.outputs] == ["you    yes .\nclerk  done .\n"]


def test_practice_has_more_asides_and_references_and_nothing_else_changes():
    asides = {p: sum("friend" in s.words for i in range(200) for s, _ in talk(i, practice=p).turns) for p in (0, 1)}
    memory = {p: sum("last" in s.words for i in range(200) for s, _ in talk(i, practice=p).turns) for p in (0, 1)}
    assert 1.5 < asides[1] / asides[0] < 2.5
    assert memory[1] > 1.5 * memory[0]
