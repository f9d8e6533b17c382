"""The grammar of ToyWorld: what can be said (`EVENTS`) and what opens a sentence (`OPENERS`).

A template is a sentence. `{name=chooser}` is a slot, drawn by that chooser (`{name}` is short for
`{name=name}`); anything else is a word. Its Chinese uses the slots' names; `word:english` aligns a Chinese
word with an English one, `{thing.m}` is the measure word of a slot. Its effects are facts:
`thing.place=place` (the thing is now where slot `place` says), `thing.holder=-` (no longer held),
`who.fruit+=n` (count). Weights are relative: among the sentences that can still follow, a sentence has its
weight over their sum.
"""

from __future__ import annotations

import re

from llmbook.toyworld.state import Template


def template(kind, weight, english, chinese, effects="", when="", stage="main", then="main") -> Template:
    """Read one row of the table below."""
    items = tuple(_item(word) for word in english.split())
    return Template(kind, weight, items, _chinese(chinese), _effects(effects), when, stage, then)


def _item(word: str) -> str | tuple[str, str]:
    match = re.fullmatch(r"\{(\w+)=?(\w*)\}", word)
    return (match[1], match[2] or match[1]) if match else word


def _chinese(text: str) -> tuple[tuple[str, str], ...]:
    """`留:leaves` is 留 aligned with "leaves"; a slot is aligned with itself, punctuation with its like."""
    pairs = []
    for word in text.split():
        word, _, partner = word.partition(":")
        pairs.append(
            (word, partner or word.strip("{}").split(".")[0] if "{" in word else partner or PUNCTUATION.get(word, ""))
        )
    return tuple(pairs)


PUNCTUATION = {"。": ".", "？": "?", "，": ",", "：": ":"}


def _effects(text: str) -> tuple[tuple[str, str, str, str], ...]:
    return tuple(re.fullmatch(r"(\w+)\.(\w+)(\+=|-=|=)(\S+)", part).groups() for part in text.split())


T = template
EVENTS: tuple[Template, ...] = (
    # How a story opens: the day, then each of the cast.
    T("day", 1, "it is {day} {time} .", "这:it 是:is {day} 的 {time} 。", "story.day=day", stage="day", then="meet"),
    T("meet", 1, "the {job} {who=newcomer} is in the {place=work} .", "{job} {who} 在:in {place} 里 。",
      "who.name=who who.job=job who.place=place", stage="meet", then="meet"),
    # Going about.
    *(T("go", 0.3, f"{{who}} {verb} to the {{place=elsewhere}} .",
        f"{{who}} {chinese} 了 {{place}} 。", "who.place=place")
      for verb, chinese in (("goes", "去:goes"), ("walks", "走:walks 到:to"), ("runs", "跑:runs 到:to"))),
    T("travel", 0.3, "{who} travels to {town} .",
      "{who} 去:travels {town} 旅行:travels 。", "who.place=town", when="town"),
    # Things: bought, left somewhere, given, looked for.
    T("get", 0.8, "{who} buys a {colour} {thing=new} .", "{who} 买:buys 了 一:a {thing.m} {colour} 的 {thing} 。",
      "thing.colour=colour thing.holder=who", when="new"),
    T("leave", 4.0, "{who} leaves a {colour} {thing=new} in the {place=home} .",
      "{who} 在:in {place} 里 留下:leaves 了 一:a {thing.m} {colour} 的 {thing} 。",
      "thing.colour=colour thing.place=place who.place=place", when="new"),
    T("leave", 4.0, "{who} leaves the {thing=held} in the {place=home} .",
      "{who} 把 {thing} 留:leaves 在:in 了 {place} 里 。",
      "thing.place=place who.place=place thing.holder=-", when="held"),
    T("give", 1.5, "{who} gives the {thing=held} to {other} .", "{who} 把 {thing} 给:gives 了 {other} 。",
      "thing.holder=other other.luck=up", when="held"),
    T("look", 6.0, "{who} looks for the {thing=lost} and finds it in the {place=kept} .",
      "{who} 找:looks {thing} ， 在:in {place} 里 找到:finds 了 它:it 。",
      "thing.holder=who thing.place=- who.place=place who.luck=up", when="lost"),
    T("see", 6, "{who} sees the {thing=lost} in the {place=kept} .", "{who} 看见:sees {thing} 在:in {place} 里 。",
      "who.place=place", when="lost"),
    T("guess", 2, "{who} looks for the {thing=lost} in the {place=guess} .",
      "{who} 在:in {place} 里 找:looks {thing} 。",
      "who.place=place", when="lost", then="search"),
    T("hit", 1, "it is there .", "它:it 就 在:is 那里:there 。", "thing.holder=who thing.place=- who.luck=up",
      when="hit", stage="search"),
    T("miss", 1, "it is not there .",
      "它:it 不:not 在:is 那里:there 。", "who.luck=down", when="miss", stage="search"),
    # Counting.
    T("pick", 1.3, "{who} picks {n=amount} {fruit=fresh} .",
      "{who} 采摘:picks 了 {n} {fruit.m} {fruit} 。", "who.fruit+=n",
      when="fresh"),
    T("eat", 0.6, "{who} eats {n=bite} {fruit=edible} .", "{who} 吃:eats 了 {n} {fruit.m} {fruit} 。", "who.fruit-=n",
      when="edible"),
    T("count", 1.5, "{who} counts {poss} {fruit=owned} : {n=total} .",
      "{who} 数:counts 了 数 {poss} 的 {fruit} ： {n} {fruit.m} 。", when="owned"),
    # Feelings.
    T("feel", 0.8, "{who} is {feeling} .", "{who} 很:is {feeling} 。", "who.feeling=feeling"),
    T("act", 0.5, "{who} {act} .", "{who} {act} 。"),
    # Everybody at once: the verb is plural.
    T("go", 1, "they go to the {place} .", "{they} 去:go 了 {place} 。", "they.place=place"),
    T("feel", 1, "they are {feeling} .", "{they} 很:are {feeling} 。", "they.feeling=feeling"),
    T("act", 1, "they {act=group_act} .", "{they} {act} 。"),
    # Scenery: nothing happens, but the verb agrees with a noun six words back.
    T("scene", 1, "the {scene} near the {landmark} behind the {landmark2=beyond} {is=agree} {quality} .",
      "{landmark2} 后面:behind 的 {landmark} 旁边:near 的 那:the {scene.m} {scene} 很:is {quality} 。"),
    T("then", 1, "then", "然后:then"),
    T("later", 1, "later", "后来:later"),
    # Dialogue: a question sets the stage for its answer.
    T("ask_place", 2, "{who} asks {other} : where is the {thing=asked} ?",
      "{who} 问:asks {other} ： {thing} 在:is 哪里:where ？",
      when="asked", then="ask_place"),
    T("say_place", 1, "{who=speaker} says : it is in the {place=kept} .",
      "{who} 说:says ： 它:it 在:in {place} 里 。",
      when="kept", stage="ask_place"),
    T("say_mine", 1, "{who=speaker} says : I have it .",
      "{who} 说:says ： 它:it 在 我:I 这里:have 。", when="mine", stage="ask_place"),
    T("say_holder", 1, "{who=speaker} says : {holder} has it .", "{who} 说:says ： 它:it 在 {holder} 那里:has 。",
      when="holder", stage="ask_place"),
    T("say_unknown", 0.7, "{who=speaker} says : I do not know .", "{who} 说:says ： 我:I 不:not 知道:know 。",
      when="unknown", stage="ask_place"),
    T("say_maybe", 0.3, "{who=speaker} says : maybe in the {place=home} .",
      "{who} 说:says ： 也许:maybe 在:in {place} 里 。",
      when="unknown", stage="ask_place"),
    T("ask_count", 0.5, "{who} asks {other} : how many {fruit=countable} do you have ?",
      "{who} 问:asks {other} ： 你:you 有:have 几:how {fruit.m} {fruit} ？", then="ask_count"),
    T("say_count", 1, "{who=speaker} says : I have {n=total} .", "{who} 说:says ： 我:I 有:have {n} {fruit.m} 。",
      when="total", stage="ask_count"),
    T("say_none", 1, "{who=speaker} says : I have none .",
      "{who} 说:says ： 我:I 没有:none 。", when="none", stage="ask_count"),
    T("ask_day", 0.25, "{who} asks {other} : what day is it ?",
      "{who} 问:asks {other} ： 今天:it 是:is 星期:day 几:what ？",
      then="ask_day"),
    T("say_day", 1, "{who=speaker} says : it is {day} .", "{who} 说:says ： 今天:it 是:is {day} 。", stage="ask_day"),
    T("ask_colour", 0.5, "{who} asks {other} : what colour is the {thing=mentioned} ?",
      "{who} 问:asks {other} ： {thing} 是:is 什么:what 颜色:colour 的 ？", when="mentioned", then="ask_colour"),
    T("say_colour", 1, "{who=speaker} says : it is {colour=shade} .", "{who} 说:says ： 它:it 是:is {colour} 的 。",
      stage="ask_colour"),
    T("request", 0.6, "{who} asks {other} : please give me the {thing=theirs} .",
      "{who} 对 {other} 说:asks ： 请:please 把 {thing} 给:give 我:me 。", when="theirs", then="request"),
    T("grant", 0.7, "{who=speaker} says : here you are .", "{who} 说:says ： 给:here 你:you 。",
      "thing.holder=other other.luck=up", stage="request", then="thank"),
    T("refuse", 0.3, "{who=speaker} says : sorry , I need it .",
      "{who} 说:says ： 对不起:sorry ， 我:I 需要:need 它:it 。",
      "other.luck=down", stage="request"),
    T("thank", 1, "{who=speaker} says : thank you .", "{who} 说:says ： 谢谢:thank 你:you 。", stage="thank"),
    T("invite", 0.35, "{who} asks {other} : will you come to the {place} with me ?",
      "{who} 问:asks {other} ： 你:you 和:with 我:me 一起 去:come {place} 吗 ？", then="invite"),
    T("accept", 0.7, "{who=speaker} says : yes , let us go .", "{who} 说:says ： 好:yes ， 我们:us 走:go 吧:let 。",
      "who.place=place other.place=place", stage="invite"),
    T("decline", 0.3, "{who=speaker} says : no , I am tired .", "{who} 说:says ： 不:no ， 我:I 累:tired 了 。",
      "who.feeling=tired other.luck=down", stage="invite"),
    # The end.
    T("end", 1, "that was a {tone} {day} . <eos>", "那:that 是:was 一:a 个 {tone} 的 {day} 。", then="over"),
)  # fmt: skip

# What a sentence opens with, and how often. A word, or the slot of a single subject.
OPENERS = {("who", "who"): 0.72, "they": 0.08, "the": 0.1, "then": 0.05, "later": 0.05}
