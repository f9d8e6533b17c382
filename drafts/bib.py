import re
new = r'''
@book{bird2009natural,
  author    = {Bird, Steven and Klein, Ewan and Loper, Edward},
  title     = {Natural Language Processing with {Python}},
  publisher = {O'Reilly},
  year      = {2009},
  url       = {https://www.nltk.org/book/},
}

@article{bradley1952rank,
  author  = {Bradley, Ralph Allan and Terry, Milton E.},
  title   = {Rank Analysis of Incomplete Block Designs: {I}. The Method of Paired Comparisons},
  journal = {Biometrika},
  volume  = {39},
  pages   = {324--345},
  year    = {1952},
  doi     = {10.1093/biomet/39.3-4.324},
}

@inproceedings{budzianowski2018multiwoz,
  author    = {Budzianowski, Pawe{\l} and Wen, Tsung-Hsien and Tseng, Bo-Hsiang and Casanueva, I{\~n}igo and Ultes, Stefan and Ramadan, Osman and Ga{\v{s}}i{\'c}, Milica},
  title     = {{MultiWOZ} -- A Large-Scale Multi-Domain {Wizard-of-Oz} Dataset for Task-Oriented Dialogue Modelling},
  booktitle = {Conference on Empirical Methods in Natural Language Processing},
  pages     = {5016--5026},
  year      = {2018},
  doi       = {10.18653/v1/D18-1547},
}

@inproceedings{forsyth2007lexical,
  author    = {Forsyth, Eric N. and Martell, Craig H.},
  title     = {Lexical and Discourse Analysis of Online Chat Dialog},
  booktitle = {International Conference on Semantic Computing},
  pages     = {19--26},
  year      = {2007},
  doi       = {10.1109/ICSC.2007.55},
}

@inproceedings{gao2023scaling,
  author    = {Gao, Leo and Schulman, John and Hilton, Jacob},
  title     = {Scaling Laws for Reward Model Overoptimization},
  booktitle = {40th International Conference on Machine Learning},
  year      = {2023},
  url       = {https://arxiv.org/abs/2210.10760},
}

@inproceedings{greshake2023not,
  author    = {Greshake, Kai and Abdelnabi, Sahar and Mishra, Shailesh and Endres, Christoph and Holz, Thorsten and Fritz, Mario},
  title     = {Not What You've Signed Up For: Compromising Real-World {LLM}-Integrated Applications with Indirect Prompt Injection},
  booktitle = {16th {ACM} Workshop on Artificial Intelligence and Security},
  year      = {2023},
  url       = {https://arxiv.org/abs/2302.12173},
}

@inproceedings{hosseini2020simple,
  author    = {Hosseini-Asl, Ehsan and McCann, Bryan and Wu, Chien-Sheng and Yavuz, Semih and Socher, Richard},
  title     = {A Simple Language Model for Task-Oriented Dialogue},
  booktitle = {Advances in Neural Information Processing Systems 33},
  year      = {2020},
  url       = {https://arxiv.org/abs/2005.00796},
}

@inproceedings{ouyang2022training,
  author    = {Ouyang, Long and Wu, Jeffrey and Jiang, Xu and Almeida, Diogo and others},
  title     = {Training Language Models to Follow Instructions with Human Feedback},
  booktitle = {Advances in Neural Information Processing Systems 35},
  year      = {2022},
  url       = {https://arxiv.org/abs/2203.02155},
}

@inproceedings{rafailov2023direct,
  author    = {Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Manning, Christopher D. and Ermon, Stefano and Finn, Chelsea},
  title     = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
  booktitle = {Advances in Neural Information Processing Systems 36},
  year      = {2023},
  url       = {https://arxiv.org/abs/2305.18290},
}

@misc{shao2024deepseekmath,
  author = {Shao, Zhihong and Wang, Peiyi and Zhu, Qihao and Xu, Runxin and Song, Junxiao and others},
  title  = {{DeepSeekMath}: Pushing the Limits of Mathematical Reasoning in Open Language Models},
  note   = {arXiv:2402.03300},
  year   = {2024},
  url    = {https://arxiv.org/abs/2402.03300},
}

@misc{wallace2024instruction,
  author = {Wallace, Eric and Xiao, Kai and Leike, Reimar and Weng, Lilian and Heidecke, Johannes and Beutel, Alex},
  title  = {The Instruction Hierarchy: Training {LLM}s to Prioritize Privileged Instructions},
  note   = {arXiv:2404.13208},
  year   = {2024},
  url    = {https://arxiv.org/abs/2404.13208},
}

@article{williams1992simple,
  author  = {Williams, Ronald J.},
  title   = {Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning},
  journal = {Machine Learning},
  volume  = {8},
  pages   = {229--256},
  year    = {1992},
  doi     = {10.1007/BF00992696},
}

@article{young2013pomdp,
  author  = {Young, Steve and Ga{\v{s}}i{\'c}, Milica and Thomson, Blaise and Williams, Jason D.},
  title   = {{POMDP}-Based Statistical Spoken Dialog Systems: A Review},
  journal = {Proceedings of the {IEEE}},
  volume  = {101},
  pages   = {1160--1179},
  year    = {2013},
  doi     = {10.1109/JPROC.2012.2225812},
}
'''
p='book/references.bib'; s=open(p).read()
ents=re.findall(r"^@\w+\{\w+,\n.*?^\}\n",s,flags=re.M|re.S)
head=s[:s.index(ents[0])]
add=re.findall(r"^@\w+\{\w+,\n.*?^\}\n",new,flags=re.M|re.S)
key=lambda e: re.match(r"@\w+\{(\w+),",e)[1]
have={key(e) for e in ents}
allv=sorted(ents+[e for e in add if key(e) not in have],key=key)
open(p,'w').write(head+"\n".join(allv))
p='_toc.yml'; s=open(p).read()
if '20_dialogue' not in s:
    s=s.replace('  - caption: Back matter','  - caption: V. Applications\n    numbered: true\n    chapters:\n      - file: notebooks/20_dialogue\n  - caption: Back matter'); open(p,'w').write(s)
p='book/intro.md'; s=open(p).read()
s=s.replace("| 20 | Dialogue | Does it remember what was said? | planned |","| 20 | [Dialogue](../notebooks/20_dialogue.ipynb) | Does it remember what was said? | here |"); open(p,'w').write(s)
terms={
"advantage":"In learning from rewards, a reward less what was to be expected, such as the mean of a group of replies to the same question; its sign says whether a reply is made likelier or less likely. See {ref}`ch-20`.",
"chat template":"The rule that writes a list of messages as one text, with marks for each role. A model is trained with one template and misunderstands another. See {ref}`ch-20`.",
"dialogue act":"What an utterance does: ask, confirm, greet, refuse. See {ref}`ch-20`.",
"dialogue state":"What has been settled so far in a conversation: a value, or none, for each {term}`slot`. See {ref}`ch-20`.",
"direct preference optimisation":"DPO. Learning from pairs of replies of which one is preferred, by a loss in the model's own log-probabilities and without a reward model {cite:p}`rafailov2023direct`. See {ref}`ch-20`.",
"group-relative policy optimisation":"GRPO. A policy gradient whose baseline is the mean reward of several replies to the same question {cite:p}`shao2024deepseekmath`. See {ref}`ch-20`.",
"joint goal accuracy":"The share of turns after which the {term}`dialogue state` is right in every slot. See {ref}`ch-20`.",
"masked loss":"A mean over the tokens that a model is to learn to write; those that it only reads, such as a user's, are left out. See {ref}`ch-20`.",
"policy gradient":"The gradient of an expected reward, estimated from samples: each sample's log-probability is pushed in proportion to its reward {cite:p}`williams1992simple`. See {ref}`ch-20`.",
"prompt injection":"An instruction in a text that a model reads as data. Indirect, where somebody else than the user wrote it {cite:p}`greshake2023not`. See {ref}`ch-20`.",
"reward hacking":"Earning a reward by what the reward fails to exclude, so that it rises while what was meant does not. See {ref}`ch-20`.",
"slot":"One of the things that a task needs to know, such as a day or a place; in a {term}`dialogue state` it has a value or none. See {ref}`ch-20`.",
"tool call":"Text by which a model asks a program for a result, which is then put into its text. See {ref}`ch-20`.",
"user simulator":"A program that plays the user of a dialogue system, with a goal of its own, to train or to test it. See {ref}`ch-20`.",
}
p='book/glossary.md'; s=open(p).read()
i=s.index(":sorted:\n")+len(":sorted:\n"); j=s.rindex("```")
blocks=[b for b in s[i:j].strip("\n").split("\n\n") if b.strip()]
names={b.split("\n")[0].lower() for b in blocks}
blocks+=[f"{k}\n  {v}" for k,v in terms.items() if k not in names]
if ':sorted:' in s:
    # insert alphabetically
    order=lambda b: b.split("\n")[0].lower()
    new=[b for b in blocks if order(b) not in names]
    old=[b for b in blocks if order(b) in names]
    for b in new:
        k=next((n for n,o in enumerate(old) if order(o)>order(b)),len(old)); old.insert(k,b)
    s=s[:i]+"\n"+"\n\n".join(old)+"\n"+s[j:]
    open(p,'w').write(s)
p='book/notation.md'; s=open(p).read()
if '## Dialogue' not in s:
    s=s.replace("## General\n",'''## Dialogue

| Symbol | Meaning | Shape |
|---|---|---|
| $h$, $s$, $a$, $w$ | history of a dialogue; its state; the clerk's act; the clerk's words | – |
| $m_t$ | 1 where the token at place $t$ is scored, else 0 | – |
| $\\theta_{uc}$, $\\alpha_c$, $n_c$ | taste of customer $u$ for colour $c$; prior weight of the colour; purchases seen | – |
| $r(y)$ | reward of a reply $y$ | – |
| $y \\succ y'$ | $y$ is preferred to $y'$ | – |
| $\\pi$, $\\pi_0$, $\\pi^*$ | policy that learns; reference; the optimum, {eq}`eq-tilted` | – |
| $\\beta$ | price of a nat of distance from the reference | – |
| $b$, $A_i$, $G$ | baseline; advantage of reply $i$; replies in a group | – |

## General
'''); open(p,'w').write(s)
p='book/audit.md'; s=open(p).read()
row='''| *§6.5* Dialogue systems serve as assistants that support customers and process orders | **holds with a condition** | with tools, a tracked state and tests: a clerk of ToyWorld closes most orders rightly, and new wordings, or an instruction in a text that it reads, cost it at once. [Chapter 20](../notebooks/20_dialogue.ipynb) |
| *§6.5* Chatbots interact with users in natural language | **holds with a condition** | that what they refuse and whom they obey is measured: [chapter 20](../notebooks/20_dialogue.ipynb) |
| *§6.5* Dialogue systems give personal recommendations | **holds with a condition** | what is known of the customer sets what a recommendation can gain, by the rule of Bayes: [chapter 20](../notebooks/20_dialogue.ipynb) |
'''
if '*§6.5* Dialogue' not in s:
    k=s.index("| *§7.1, §10.1* *The Handbook"); s=s[:k]+row+s[k:]; open(p,'w').write(s)
