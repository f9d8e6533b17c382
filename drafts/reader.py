import sys,time,pathlib,tempfile
import numpy as np, torch
from llmbook.applications import answering as A, reader as R
from llmbook import training
from llmbook.toyworld import ToyWorld
from safetensors.torch import load_file
seed=int(sys.argv[1]); kw=eval(sys.argv[2]) if len(sys.argv)>2 else {}
w=ToyWorld("small"); r=R.ReaderRecipe(seed=seed,**kw)
S=w.stories(100,seed+1000); items=[i for s in S for i in A.answerable(s)]
rng=np.random.default_rng(seed); un=[A.unanswerable(s,w,rng) for s in S]
def test(m):
    a=R.read(m,items)
    em=np.array([x.text==i.answer for x,i in zip(a,items)]); fw=np.array([x.word==i.answer for x,i in zip(a,items)])
    from collections import defaultdict
    d=defaultdict(list)
    for i,e in zip(items,fw): d[' '.join(i.question[:2])].append(e)
    b=R.read(m,un)
    print("EM",em.mean().round(3),"forced",fw.mean().round(3),{k:(round(float(np.mean(v)),3)) for k,v in d.items()},"null right",np.mean([x.text is None for x in b]),"loss",training.model_loss and round(float(np.mean([-np.log(max(x.confidence,1e-9)) for x in a])),3),flush=True)
t=time.process_time()
orig=R.fit
def fit(model,gb,args,**k):
    def cb(step,m):
        if (step+1)%260==0: print(step+1,round(time.process_time()-t,1),flush=True); test(m); m.train()
    return orig(model,gb,args,callback=cb,**k)
R.fit=fit
f=pathlib.Path(tempfile.mkdtemp()); R.train_reader(r,f); print("train cpu",time.process_time()-t)
import shutil; shutil.copytree(f,f"17x/reader{seed}",dirs_exist_ok=True)
