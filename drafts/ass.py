from llmbook.applications import assistant as A
import numpy as np, time
t=time.process_time()
P=A.passages(chapters=[f"{i:02}" for i in range(1,16)]); print(len(P), np.mean([len(p.text.split()) for p in P]))
a=A.Assistant(P); q=A.questions(); s=np.stack([a.scores(x["question"]) for x in q])
pl=A.places(a,q,s); print("r1",(pl<=1).mean(),"r3",(pl<=3).mean(),"r5",(pl<=5).mean(),"mrr",(1/pl).mean(), time.process_time()-t)
for x,p,r in list(zip(q,pl,s))[:400:1]:
    if p>5: print(int(p),x["chapter"],x["question"],'|',x["sections"],'->',P[r.argmax()].chapter,P[r.argmax()].heading)
print(a.answer("What is a causal mask?")[0])
