"""Ranking: BM25 is bm25s's, ranks and their means are scikit-learn's and scipy's, fusion looks at places only."""

import bm25s
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llmbook.applications import tower
from llmbook.applications.retrieval import BM25, mean_reciprocal_rank, ranks, recall_at, reciprocal_rank_fusion
from llmbook.toyworld import ToyWorld

TEXTS = [text.split() for text in ("the cat sat on the mat", "a dog sat", "the cat saw the cat", "birds")]


@pytest.fixture(scope="module")
def stories():
    return ToyWorld("small").stories(60, seed=3)


# ------------------------------------------------------------ BM25


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (2.0, 0.0), (1.2, 1.0)])
def test_scores_are_those_of_bm25s(stories, k1, b):
    passages = [story.words for story in stories]
    ours = BM25(passages, k1, b)
    theirs = bm25s.BM25(k1=k1, b=b, method="lucene")
    theirs.index(passages, show_progress=False)
    for story in stories[:20]:
        query = tower.clue(story)
        np.testing.assert_allclose(ours.scores(query), theirs.get_scores(query), rtol=1e-4, atol=1e-4)


def test_a_rare_word_weighs_more_and_an_unknown_one_finds_nothing():
    index = BM25(TEXTS)
    assert index.idf("dog") > index.idf("the") > 0
    assert not index.scores(["zebra"]).any()
    assert not index.scores([]).any()


def test_without_k1_repetition_counts_once():
    once = BM25(TEXTS, k1=0).scores(["cat"])
    assert once[0] == pytest.approx(once[2])
    assert BM25(TEXTS).scores(["cat"])[2] > BM25(TEXTS).scores(["cat"])[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([],), "at least one passage"),
        ((["a text"],), "split it first"),
        ((TEXTS, -1.0), "k1 must be"),
        ((TEXTS, 1.0, 2.0), "b lie in"),
    ],
)
def test_bad_indexes(arguments, words):
    with pytest.raises(ValueError, match=words):
        BM25(*arguments)


def test_a_query_is_a_list():
    with pytest.raises(ValueError, match="query must be a list"):
        BM25(TEXTS).scores("the cat")


# ------------------------------------------------------------ rankings


def test_ranks_by_hand():
    table = [[3.0, 2.0, 1.0], [0.0, 5.0, 5.0], [1.0, 1.0, 1.0]]
    assert ranks(table, [1, 2, 0]).tolist() == [2.0, 1.5, 2.0]


def test_recall_and_mrr_are_scikit_learns():
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

    rng = np.random.default_rng(0)
    table, wanted = rng.normal(size=(40, 12)), rng.integers(12, size=40)
    places = ranks(table, wanted)
    for k in (1, 3, 5):
        assert recall_at(places, k) == pytest.approx(top_k_accuracy_score(wanted, table, k=k, labels=range(12)))
    assert mean_reciprocal_rank(places) == pytest.approx(
        label_ranking_average_precision_score(np.eye(12)[wanted], table)
    )  # with one relevant passage, its precision is 1/place


@pytest.mark.parametrize(
    ("table", "wanted", "words"),
    [
        ([1.0], [0], "scores must be"),
        ([[np.nan]], [0], "without NaN"),
        ([[1.0, 2.0]], [0, 1], "a passage for each query"),
        ([[1.0, 2.0]], [2], "lie in 0..1"),
    ],
)
def test_bad_rankings(table, wanted, words):
    with pytest.raises(ValueError, match=words):
        ranks(table, wanted)
    with pytest.raises(ValueError, match="k must be"):
        recall_at([1.0], 0)


def test_fusion_looks_at_places_only():
    one, two = np.array([[9.0, 5.0, 1.0]]), np.array([[0.1, 0.3, 0.2]])
    np.testing.assert_allclose(reciprocal_rank_fusion(one, two), reciprocal_rank_fusion(1000 * one, two**3))
    np.testing.assert_allclose(reciprocal_rank_fusion(one, two)[0, 0], 1 / 61 + 1 / 63)
    assert ranks(reciprocal_rank_fusion(one), [2])[0] == ranks(one, [2])[0]
    with pytest.raises(ValueError, match="one shape"):
        reciprocal_rank_fusion(one, two.T)
    with pytest.raises(ValueError, match="at least one"):
        reciprocal_rank_fusion()


# ------------------------------------------------------------ the dense retriever


def test_a_clue_is_in_the_story_and_other_words_are_not(stories):
    for story in stories[:10]:
        clue = [word for word in tower.clue(story) if word not in (",", "and")]
        assert set(clue) <= set(story.words)
        assert tower.reworded(tower.clue(story)) != tower.clue(story)
    assert not set(tower.OTHER_WORDS.values()) & set(ToyWorld("small").vocabulary)
    assert not set(tower.STRANGERS.values()) & set(ToyWorld("small").vocabulary)


def test_info_nce_is_a_cross_entropy_and_is_least_where_pairs_agree():
    generator = torch.Generator().manual_seed(0)
    queries, passages = (F.normalize(torch.randn(6, 8, generator=generator), dim=-1) for _ in range(2))
    by_hand = -torch.stack([torch.log_softmax(queries[i] @ passages.T / 0.1, dim=-1)[i] for i in range(6)]).mean()
    torch.testing.assert_close(tower.info_nce(queries, passages, 0.1), by_hand)
    assert tower.info_nce(queries, queries, 0.1) < tower.info_nce(queries, passages, 0.1)
    with pytest.raises(ValueError, match="one shape"):
        tower.info_nce(queries, passages[:3])
    with pytest.raises(ValueError, match="temperature"):
        tower.info_nce(queries, passages, 0.0)


def test_vectors_have_length_one_and_do_not_see_padding(stories):
    model = tower.new_tower(tower.TowerRecipe())
    rows = [story.words for story in stories[:5]]
    together, alone = model.encode(rows), model.encode(rows[:1])
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(5))
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


def test_bad_rows():
    with pytest.raises(ValueError, match="got 'zebra'"):
        tower.to_ids([["zebra"]])
    with pytest.raises(ValueError, match="at least one row"):
        tower.to_ids([])


def test_training_brings_a_query_to_its_passage(tmp_path, stories):
    from safetensors.torch import load_file

    recipe = tower.TowerRecipe(n_embd=32, batch_size=16, max_steps=40)
    tower.train_tower(recipe, tmp_path)
    after = tower.new_tower(recipe)
    after.load_state_dict(load_file(tmp_path / "model.safetensors"))
    places = []
    for model in (tower.new_tower(recipe), after):
        table = model.encode([tower.clue(s) for s in stories]) @ model.encode([s.words for s in stories]).T
        places.append(ranks(table.numpy(), range(len(stories))))
    assert mean_reciprocal_rank(places[1]) > 2 * mean_reciprocal_rank(places[0])
