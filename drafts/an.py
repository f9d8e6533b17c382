from llmbook.applications import reader,answering as A
from llmbook.toyworld import ToyWorld
from collections import defaultdict
import numpy as np
w=ToyWorld("small"); m=reader.toyworld_reader(0); S=w.stories(150,777)
d=defaultdict(list); ex=[]
for s in S:
    its=[i for i in A.answerable(s) if i.question[0]=="where"]
    ev={q.question:q for q in s.questions}
    for i,a in zip(its,reader.read(m,its)):
        q=ev[' '.join(i.question)]; e=s.events[q.event]
        subj="thing" if "the" in i.question else "person"
        who=e.slots.get("who"); tok=s.tokens[e.at["who"]] if "who" in e.at else "they"
        ok=a.word==i.answer
        d[subj,e.kind,"pron" if tok in("he","she") else "they" if tok=="they" else "name"].append(ok)
        d[subj].append(ok)
        if not ok: ex.append((' '.join(i.question),i.answer,a.word,i.target,[k for k in s.events][q.event].kind))
for k,v in sorted(d.items(),key=str): print(k,len(v),round(np.mean(v),3))
print(ex[:12])
