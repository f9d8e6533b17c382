import time,sys,dataclasses,tempfile,torch,numpy as np
torch.set_num_threads(1)
from pathlib import Path
from llmbook.applications import dialogue as d, shop
from llmbook.transformer import GPT
kw=eval("dict(%s)"%sys.argv[1])
r=d.ClerkRecipe(**kw)
f=Path(f"20s/m_{sys.argv[2]}"); f.mkdir(exist_ok=True)
t=time.process_time(); d.train_clerk(r,f); print("train",time.process_time()-t)
m=GPT.from_pretrained(f); v=d.Words()
for unseen in (False,True):
    t=time.process_time()
    talks=[shop.converse(np.random.default_rng([99,i]),unseen=unseen) for i in range(80)]
    ctx=[c for k in talks for c in d.contexts(k)]; truth=[a.state for k in talks for a,_ in k.turns]; acts=[b.act for k in talks for _,b in k.turns]
    kinds=[a.kind for k in talks for a,_ in k.turns]
    out=[]
    order=sorted(range(len(ctx)),key=lambda i:len(ctx[i]))
    res=[None]*len(ctx)
    for i in range(0,len(order),64):
        part=order[i:i+64]
        for j,o in zip(part,d.respond(m,v,[ctx[q] for q in part],most=11,stop="<say>")): res[j]=[x for x,_ in o]
    jg=d.joint_goal([d.read_state(x) for x in res],truth)
    ac=np.array([d.read_act(x)==a for x,a in zip(res,acts)])
    print(unseen,len(ctx),"JGA",jg.mean(),"act",ac.mean(),time.process_time()-t)
    for k in sorted(set(kinds)):
        w=np.array([q==k for q in kinds]); print("   ",k,w.sum(),jg[w].mean().round(3),ac[w].mean().round(3))
