import numpy as np, collections
from llmbook.applications import dialogue as d
w=d.Words(); print(len(w))
L=[];T=[]
for i in range(400):
    t=d.converse(np.random.default_rng([1,i]), unseen=i>=200)
    r=d.scored_tokens(t); w.encode([x for x,_ in r]); L.append(len(r)); T.append(len(t.turns))
    if i in(0,1,2,3): print(" ".join(x if s else x for x,s in r).replace("<user>","\n<user>")); print()
print(np.mean(L),max(L),np.mean(T), max(T))
got=[];tr=[]
for i in range(300):
    t=d.converse(np.random.default_rng([2,i])); s={}
    for a,b in t.turns:
        s=d.track_keywords(a.words,s); got.append(s); tr.append(a.state)
print(d.joint_goal(got,tr).mean(), len(tr))
# seen words vs unseen
seen=set()
for i in range(3000):
    seen|={x for x,_ in d.scored_tokens(d.converse(np.random.default_rng([3,i])))}
un=set()
for i in range(1000):
    un|={x for x,_ in d.scored_tokens(d.converse(np.random.default_rng([4,i]),unseen=True))}
print(un-seen)
