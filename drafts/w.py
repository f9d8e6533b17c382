import time,numpy as np,torch
from llmbook.applications import generation as G, summarization as S
from llmbook import zoo
w=G.world()
base=zoo.toyworld_gpt(0)
t=time.process_time(); wr=G.writer(0); print("writer",time.process_time()-t,flush=True)
g=lambda n:torch.Generator().manual_seed(n)
t=time.process_time(); d=G.draft(base,[["<bos>"]]*256,generator=g(0)); print("draft256",time.process_time()-t)
pos=[w.is_possible(x) for x in d]; print("possible",np.mean([bool(v) and v.complete for v in pos]), "mean idx", np.median([v.index or 99 for v in pos]))
for T in (.7,):
    d2=G.draft(base,[["<bos>"]]*128,generator=g(0),temperature=T); print(T,np.mean([bool(w.is_possible(x)) for x in d2]))
st=w.stories(4000,9)
print("world Monday",np.mean([s.tokens[2]=="Monday" for s in st]),"model",np.mean([x[2]=="Monday" for x in d]))
rng=np.random.default_rng(0)
ctr=[G.control_of(s.tokens,rng) for s in st[:128]]
c=G.Control("good","key",True)
print("joint world",np.mean([all(G.fulfils(s.tokens,c).values()) for s in st]),"model",np.mean([all(G.fulfils(x,c).values()) for x in d]))
for k in ("tone","thing","short"):
    print(k,np.mean([G.fulfils(s.tokens,c)[k] for s in st]),np.mean([G.fulfils(x,c)[k] for x in d]))
out=G.draft(wr,[[*q.tokens,"<bos>"] for q in ctr],generator=g(1))
F=[G.fulfils(x,q) for x,q in zip(out,ctr)]
print("control",{k:np.mean([f[k] for f in F]) for k in F[0]},np.mean([all(f.values()) for f in F]),"possible",np.mean([bool(w.is_possible(x)) for x in out]))
out=G.draft(wr,[[*c.tokens,"<bos>"]]*128,generator=g(1)); F=[G.fulfils(x,c) for x in out]
print("control key",{k:np.mean([f[k] for f in F]) for k in F[0]},np.mean([all(f.values()) for f in F]),"possible",np.mean([bool(w.is_possible(x)) for x in out]))
pl=["key","garden","travels"]
m=G.PlanMask(pl,1)
out=G.draft(base,[["<bos>"]]*128,generator=g(2),logits_processor=[m])
print("plan",np.mean([all(p in x for p in pl) and x[-1]=="<eos>" for x in out]),np.mean([len(x) for x in out]),"possible",np.mean([bool(w.is_possible(x)) for x in out]),"free",np.mean([all(p in x for p in pl) for x in d]), np.mean([all(p in s.tokens for p in pl) for s in st]))
