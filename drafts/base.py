import time,sys,numpy as np
t=time.process_time()
from llmbook import zoo
from llmbook.toyworld import ToyWorld
for s in map(int,sys.argv[1:]):
    t=time.process_time(); zoo.toyworld_gpt(s); print(s,time.process_time()-t,flush=True)
w=ToyWorld("small")
st=w.stories(2000,5)
L=[len(s.tokens)for s in st];S=[len(s.summary) for s in st]
print(np.mean(L),max(L),np.mean(S),max(S),max(a+b for a,b in zip(L,S)))
t=time.process_time(); w.stories(1000,6); print("1000 stories",time.process_time()-t)
print(st[0].text); print(" ".join(st[0].summary))
print(st[1].text); print(" ".join(st[1].summary))
from collections import Counter
print(Counter(s.summary.count(".") for s in st))
