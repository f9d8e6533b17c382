import time,sys,numpy as np,torch
from dataclasses import replace
from llmbook import zoo, decoding
from llmbook.toyworld import ToyWorld, labels
from llmbook.training import TrainingArguments, padded_batches, fit
from llmbook.transformer import GPT, IGNORE
w=ToyWorld("small"); EOS=w.token_to_id["<eos>"]
seed,steps,B,lr=int(sys.argv[1]),int(sys.argv[2]),int(sys.argv[3]),float(sys.argv[4])
def longer(m,n=192):
    m2=GPT(replace(m.config,n_positions=n)); m2.load_state_dict(m.state_dict()); return m2
m=longer(zoo.toyworld_gpt(seed))
st=w.stories(steps*B, seed+50)
rows=[w.encode(["<bos>",*s.tokens,*s.summary,"<eos>"]) for s in st]
args=TrainingArguments(max_steps=steps,batch_size=B,block_size=192,learning_rate=lr,warmup_steps=30,min_lr_ratio=0.,adam_beta2=.98,weight_decay=.01,seed=seed)
gb=padded_batches(rows,args)
def get(step):
    b=gb(step); ids=b["input_ids"]; lab=b["labels"]
    told=((ids==EOS).cumsum(1)-(ids==EOS).long())==0
    return {"input_ids":ids,"labels":lab.masked_fill(told,IGNORE)}
t=time.process_time(); h=fit(m,get,args,progress=False); m.eval(); print("train",time.process_time()-t,h.steps[-1],flush=True)
test=w.stories(200,10**6)
def write(m,stories,temp,gen):
    prompts=[torch.tensor(w.encode(["<bos>",*s.tokens])) for s in stories]
    T=max(map(len,prompts)); ids=torch.zeros(len(prompts),T,dtype=torch.long);mask=torch.zeros_like(ids)
    for i,p in enumerate(prompts): ids[i,T-len(p):]=p;mask[i,T-len(p):]=1
    kw=dict(do_sample=True,temperature=temp,generator=gen) if temp else {}
    out=decoding.generate(m,ids,40,attention_mask=mask,eos_token_id=EOS,**kw)[:,T:]
    return [[w.vocabulary[i] for i in r.tolist()] for r in out]
def cut(t): return t[:t.index("<eos>")] if "<eos>" in t else t
def sents(t):
    o=[[]]
    for x in t:
        o[-1].append(x)
        if x in ".?": o.append([])
    return [" ".join(x) for x in o if x]
for temp in (0,.7,1,1.5):
    t=time.process_time(); outs=[cut(x) for x in write(m,test,temp,torch.Generator().manual_seed(seed))]
    ok=n=dup=exact=full=0
    bad=[]
    for s,o in zip(test,outs):
        ev={" ".join(labels.retell(s,e)) for e in s.events}
        ss=sents(o); n+=len(ss); ok+=sum(x in ev for x in ss); dup+=len(ss)!=len(set(ss)); exact+=o==s.summary
        full+=all(x in ev for x in ss)
        bad+=[x for x in ss if x not in ev][:1]
    print(temp,"cons",ok/n,"dup",dup/len(test),"exact",exact/len(test),"whole",full/len(test),time.process_time()-t,bad[:5],flush=True)
