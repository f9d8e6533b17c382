// ToyWorld's reading side: after any beginning of a story, which words can follow, and the probability of each.
// A port of src/llmbook/toyworld (world.py, state.py, choosers.py), with its names. The words and the sentences are
// not here: the build writes them into toyworld_data.js. Tests compare the probabilities with Python's.
"use strict";

const toyworld = (() => {
  const data = globalThis.toyworldData;

  // ------------------------------------------------------------ distributions: from each word to its probability

  const certain = (word) => new Map([[word, 1]]);
  const even = (words, mass = 1) => words.map((word) => [word, mass / words.length]);
  const uniform = (options) => (options.length ? new Map(even(options)) : null);

  function favour(options, favourites, share) { // the share for the favourites, the rest for the others
    const liked = options.filter((option) => favourites.includes(option));
    const others = options.filter((option) => !favourites.includes(option));
    if (!liked.length || !others.length) return uniform(options);
    return new Map([...even(liked, share), ...even(others, 1 - share)].filter(([, p]) => p > 0));
  }

  // ------------------------------------------------------------ what a beginning has settled

  class State {
    constructor() {
      this.facts = new Map(); // relation -> subject -> value
      this.cast = []; // people, in order of appearance
      this.topic = null; // whom "she" or "he" would mean now
      this.stage = "day"; // which sentences may come next
      this.slots = {}; // of the sentence before this one: a question, when this one answers
      this.kinds = []; // of the sentences told
      this.length = 0; // words so far
    }

    get(relation, subject) {
      return this.facts.get(relation)?.get(subject);
    }

    know(relation, subject, value) {
      if (!this.facts.has(relation)) this.facts.set(relation, new Map());
      this.facts.get(relation).set(subject, value);
    }

    subjects(relation, value) { // all that stands in the relation to the value, or to any: what Anna holds, for example
      const known = [...(this.facts.get(relation) || [])];
      return known.filter(([, one]) => value === undefined || one === value).map(([subject]) => subject);
    }
  }

  // ------------------------------------------------------------ choosers: who draws a word

  // Each looks at the state and the slots filled so far; null where nothing fits.
  const choosers = {
    day: (state) => settled(state, "day", "story") || uniform(data.days),
    time: () => uniform(data.times),
    job: () => uniform(data.jobs),
    town: () => uniform(data.towns),
    colour: () => uniform(data.colours),
    scene: () => uniform(data.scenes),
    quality: () => uniform(data.qualitys),
    landmark: () => uniform(data.landmarks),
    place: () => uniform(data.places),
    group_act: () => uniform(data.group_acts),

    newcomer(state, slots) { // half of the mass for names of open gender, half for names that fit the bias
      const share = data.she[slots.job];
      const sorts = [[data.names_open, 0.5], [data.names_she, share / 2], [data.names_he, (1 - share) / 2]];
      const masses = sorts.flatMap(([names, mass]) => {
        const free = names.filter((name) => !state.cast.includes(name));
        return mass ? even(free, mass) : [];
      });
      const total = masses.reduce((sum, [, mass]) => sum + mass, 0);
      return new Map(masses.map(([name, mass]) => [name, mass / total]));
    },
    work: (state, slots) => favour(data.places, [data.workplace[slots.job]], 0.6),

    who(state) { // a name, or more often a pronoun for the subject of the sentence before
      if (state.topic === null) return uniform(state.cast);
      const share = she(state, state.topic);
      const pronouns = [["she", 0.6 * share], ["he", 0.6 * (1 - share)]];
      return new Map([...even(state.cast, 0.4), ...pronouns].filter(([, p]) => p > 0));
    },
    poss: (state, slots) => favour(["her", "his"], ["her"], she(state, slots.who)),
    other: (state, slots) => uniform(state.cast.filter((name) => name !== slots.who)),
    speaker: (state, slots) => certain(slots.who),

    elsewhere: (state, slots) => uniform(data.places.filter((place) => place !== state.get("place", slots.who))),
    home: (state, slots) => favour(data.places, [data.homes[slots.thing]], 0.3),
    new: (state) => uniform(data.things.filter((thing) => state.get("colour", thing) === undefined)),
    held: (state, slots) => uniform(state.subjects("holder", slots.who)),
    theirs(state, slots) { // what the person asked holds, or anybody else where nobody was named yet
      const others = slots.other ? [slots.other] : state.cast.filter((name) => name !== slots.who);
      return uniform(others.flatMap((name) => state.subjects("holder", name)));
    },
    lost: (state) => uniform(state.subjects("colour").filter((thing) => state.get("place", thing))),
    kept: (state, slots) => settled(state, "place", slots.thing),
    guess: (state, slots) => favour(data.places, [state.get("place", slots.thing)], 0.6),
    hit: (state, slots) => when(slots.place === state.get("place", slots.thing)),
    miss: (state, slots) => when(slots.place !== state.get("place", slots.thing)),

    asked(state, slots) { // mostly a thing that the story has mentioned; none that the asker holds
      const mine = state.subjects("holder", slots.who);
      return favour(data.things.filter((thing) => !mine.includes(thing)), state.subjects("colour"), 0.85);
    },
    mentioned: (state) => uniform(state.subjects("colour")),
    shade: (state, slots) => settled(state, "colour", slots.thing),
    mine: (state, slots) => when(state.get("holder", slots.thing) === slots.who),
    holder: (state, slots) => (choosers.mine(state, slots) ? null : settled(state, "holder", slots.thing)),
    unknown: (state, slots) => when(state.get("colour", slots.thing) === undefined),

    amount: () => new Map(Object.entries(data.amount)),
    fresh(state, slots) { // mostly more of what one has, at most nine of a kind
      const options = data.fruits.filter((fruit) => count(state, fruit, slots.who) <= 6);
      return inNumber(favour(options, has(state, slots.who), 0.75), slots);
    },
    edible(state, slots) { // as much as one has
      const needed = data.numbers.indexOf(slots.n || "one");
      return inNumber(uniform(data.fruits.filter((fruit) => count(state, fruit, slots.who) >= needed)), slots);
    },
    bite(state, slots) {
      const most = Math.max(...data.fruits.map((fruit) => count(state, fruit, slots.who)));
      return most > 1 ? favour(["one", "two"], ["one"], 0.7) : certain("one");
    },
    owned: (state, slots) => uniform(has(state, slots.who)),
    countable: (state, slots) => favour(data.fruits, has(state, slots.other), 0.75),
    total(state, slots) {
      const n = count(state, slots.fruit, slots.who);
      return n ? certain(data.numbers[n]) : null;
    },
    none: (state, slots) => when(!count(state, slots.fruit, slots.who)),

    feeling: (state, slots) => mood(state, slots.who, data.feelings),
    act: (state, slots) => mood(state, slots.who, data.acts),
    tone: (state) => new Map(Object.entries(data.tones[luckOfAll(state)])),

    agree: (state, slots) => certain(data.plural_scenes.includes(slots.scene) ? "are" : "is"),
    beyond(state, slots) { // another landmark than the first, in either number
      const stem = (word) => word.replace(/s+$/, "");
      return uniform(data.landmarks.filter((word) => stem(word) !== stem(slots.landmark)));
    },
  };

  const when = (holds) => (holds ? certain("yes") : null); // a guard: a sentence that can be said now, or cannot
  const count = (state, fruit, person) => state.get(fruit, person) || 0;
  const has = (state, person) => data.fruits.filter((fruit) => count(state, fruit, person));

  function settled(state, relation, subject) { // the one word that the facts allow
    const value = state.get(relation, subject);
    return value === undefined ? null : certain(value);
  }

  function she(state, person) { // probability that a pronoun for this person is feminine
    const gender = state.get("gender", person);
    return gender === undefined ? data.she[state.get("job", person)] : Number(gender === "she");
  }

  function inNumber(distribution, slots) { // "one apple", not "one apples"
    if (distribution === null || slots.n !== "one") return distribution;
    return new Map([...distribution].map(([fruit, p]) => [data.singulars[fruit], p]));
  }

  const luck = (state, person) => ({ up: 1, down: -1 })[state.get("luck", person)] || 0;
  const luckOfAll = (state) => Math.sign(state.cast.reduce((sum, person) => sum + luck(state, person), 0));

  function mood(state, person, options) { // good after good luck, bad after bad luck; "they" have everybody's
    const share = 0.5 + 0.4 * (person ? luck(state, person) : luckOfAll(state));
    return favour(options, options.slice(0, Math.floor(options.length / 2)), share);
  }

  // ------------------------------------------------------------ telling: yield what can follow, be sent what did

  const isSlot = (item) => item.includes("=");
  const first = (sentence) => sentence.items[0];
  function expand(item, state, slots) { // a word is certain, a slot is drawn by its chooser
    return isSlot(item) ? choosers[item.split("=")[1]](state, slots) : certain(item);
  }

  function* tell(state) { // a coroutine, as in Python: who holds the other end decides which word it is
    while (state.stage !== "over") yield* tellSentence(state);
  }

  function* tellSentence(state) { // `live` holds the sentences that agree with the words so far
    const slots = begin(state);
    let live = data.sentences.filter((sentence) => sentence.stage === state.stage);
    let [masses, position] = [openers(live, state), 0];
    while (live.length > 1) {
      const [probabilities, owner] = mix(masses, state, slots);
      const word = yield probabilities;
      const item = owner.get(word);
      note(item, word, state, slots);
      live = live.filter((sentence) => sentence.items[position] === item);
      position += 1;
      if (live.length > 1) [live, masses] = goOn(live, position, state, slots);
    }
    const [sentence] = live; // one is left: say it to its end
    for (const item of sentence.items.slice(position)) note(item, yield expand(item, state, slots), state, slots);
    close(sentence, state, slots);
  }

  function begin(state) { // a sentence that answers takes over the slots of the question, its roles swapped
    if (["day", "meet", "main"].includes(state.stage)) return {};
    const { who, other, ...rest } = state.slots;
    return other ? { ...rest, who: other, other: who } : { ...state.slots };
  }

  function openers(live, state) { // what the sentence may open with, and the mass of each
    if (state.stage !== "main") return new Map(live.map((sentence) => [first(sentence), 1]));
    const linked = ["then", "later"].includes(state.kinds.at(-1));
    const stop = stopping(linked, state);
    const known = Object.entries(data.openers).filter(
      ([item]) => live.some((sentence) => first(sentence) === item) && !(linked && ["then", "later"].includes(item)),
    );
    const total = known.reduce((sum, [, mass]) => sum + mass, 0);
    const masses = [...known.map(([item, mass]) => [item, (mass / total) * (1 - stop)]), ["that", stop]];
    return new Map(masses.filter(([, mass]) => mass > 0));
  }

  function stopping(linked, state) { // the probability that the story ends here
    const told = state.kinds.length - state.cast.length - 1;
    if (linked) return 0;
    if (told >= data.size.max_events || state.length > data.size.max_tokens) return 1;
    return told < data.size.min_events ? 0 : data.size.stop;
  }

  function goOn(live, position, state, slots) { // the sentences that can still be told, and the mass of each way
    const parted = live.some((sentence) => sentence.items[position] !== live[0].items[position]);
    const can = (sentence) => !sentence.when || choosers[sentence.when](state, slots);
    const left = parted ? live.filter(can) : live;
    const masses = new Map();
    for (const { items, weight } of left) masses.set(items[position], (masses.get(items[position]) || 0) + weight);
    return [left, masses];
  }

  function mix(masses, state, slots) { // the distribution of the next word, and which way each word belongs to
    const total = [...masses.values()].reduce((sum, mass) => sum + mass, 0);
    const [probabilities, owner] = [new Map(), new Map()];
    for (const [item, mass] of masses) {
      for (const [word, p] of expand(item, state, slots)) {
        probabilities.set(word, (mass / total) * p);
        owner.set(word, item);
      }
    }
    return [probabilities, owner];
  }

  function note(item, word, state, slots) { // what the word means for its slot, and the gender that it settles
    state.length += 1;
    if (!isSlot(item)) return;
    const [name] = item.split("=");
    slots[name] = data.plurals[word] || word;
    if (!data.pronouns.includes(word)) return;
    const person = name === "who" ? state.topic : slots.who;
    if (!state.get("gender", person)) state.know("gender", person, ["she", "her"].includes(word) ? "she" : "he");
    slots[name] = person;
  }

  function close(sentence, state, slots) { // the facts hold now, and the stage is set for the next sentence
    for (const effect of sentence.effects) apply(effect, state, slots);
    if (sentence.kind === "meet") meet(slots.who, state);
    if (!["then", "later"].includes(sentence.kind)) state.topic = slots.who ?? null;
    state.kinds.push(sentence.kind);
    state.slots = slots;
    const complete = sentence.next === "meet" && state.cast.length === data.size.cast;
    state.stage = complete ? "main" : sentence.next;
  }

  function apply([subject, relation, operator, value], state, slots) { // one effect: `thing.place=place` and the like
    const told = slots[value] ?? value;
    for (const name of subject === "they" ? state.cast : [slots[subject] ?? subject]) {
      if (told === "-") state.facts.get(relation)?.delete(name);
      else if (operator === "=") state.know(relation, name, told);
      else { // the relation is named by a slot: how many apples, how many pears
        const change = data.numbers.indexOf(told) * (operator === "+=" ? 1 : -1);
        state.know(slots[relation], name, count(state, slots[relation], name) + change);
      }
    }
  }

  function meet(name, state) {
    state.cast.push(name);
    if (!data.names_open.includes(name)) state.know("gender", name, data.names_she.includes(name) ? "she" : "he");
  }

  class Reader { // `next` is what can follow: a distribution, or null after an impossible word or the story's end
    constructor() {
      this.teller = tell(new State());
      this.next = this.teller.next().value;
    }

    read(word) { // null, or the words of which one should have stood here
      if (this.next === null) return null;
      const possible = this.next.has(word);
      const wanted = possible ? null : [...this.next.keys()];
      this.next = possible ? (this.teller.next(word).value ?? null) : null;
      return wanted;
    }
  }

  return { Reader };
})();
