import sys,time,pathlib,tempfile
import numpy as np, torch
from llmbook.applications import retrieval as R
from llmbook.toyworld import ToyWorld
from safetensors.torch import load_file
seed=int(sys.argv[1]); kw=eval(sys.argv[2]) if len(sys.argv)>2 else {}
w=ToyWorld("small"); r=R.TowerRecipe(seed=seed,**kw)
f=pathlib.Path(tempfile.mkdtemp()); t=time.process_time(); R.train_tower(r,f); print("train cpu",time.process_time()-t)
m=R.new_tower(r); m.load_state_dict(load_file(f/"model.safetensors")); m.eval()
S=w.stories(400,seed+1000); P=[s.words for s in S]
gold=np.arange(len(S))
bm=R.BM25(P); t=time.process_time(); PV=m.encode(P); print("enc",time.process_time()-t)
for name,f in (("exact",lambda s:R.clue(s)),("other",lambda s:R.reworded(R.clue(s)))):
    q=[f(s) for s in S]; b=np.stack([bm.scores(x) for x in q]); d=(m.encode(q)@PV.T).numpy(); h=R.reciprocal_rank_fusion(b,d)
    for n,t in (("bm",b),("dense",d),("rrf",h)):
        p=R.ranks(t,gold); print(name,n,[round(R.recall_at(p,k),3) for k in (1,5,10)],round(R.mean_reciprocal_rank(p),3))
strange=[R.reworded(s.words,R.STRANGERS) for s in S]; PV=m.encode(strange); bm=R.BM25(strange)
q=[R.reworded(R.clue(s),R.STRANGERS) for s in S]; b=np.stack([bm.scores(x) for x in q]); d=(m.encode(q)@PV.T).numpy()
for n,t in (("bm",b),("dense",d)):
    p=R.ranks(t,gold); print("strangers",n,[round(R.recall_at(p,k),3) for k in (1,5,10)])
