import time,sys,numpy as np,torch,math
from llmbook.toyworld import ToyWorld, labels
from llmbook.training import TrainingArguments, fit
from llmbook.transformer import GPTConfig, EncoderDecoder, IGNORE
w=ToyWorld("small"); EOS=w.token_to_id["<eos>"]; V=len(w.vocabulary)
seed,steps,B,lr=int(sys.argv[1]),int(sys.argv[2]),int(sys.argv[3]),float(sys.argv[4]); pos=sys.argv[5]; C=int(sys.argv[6]); L=int(sys.argv[7])
cfg=GPTConfig(V,n_positions=128,n_embd=C,n_layer=L,n_head=4,positions=pos,initializer_range=.02*math.sqrt(768/C))
m=EncoderDecoder(cfg,generator=torch.Generator().manual_seed(seed))
print(sum(p.numel() for p in m.parameters()))
st=w.stories(steps*B, seed+50)
st_pairs=[(w.encode(s.tokens),w.encode([*s.summary,"<eos>"])) for s in st]
# group by length within pools of 32 batches
rng=np.random.default_rng(seed); order=[]
for i in range(0,len(st),32*B):
    idx=np.arange(i,min(i+32*B,len(st))); idx=idx[np.argsort([len(st_pairs[j][0]) for j in idx],kind="stable")]
    order.append(rng.permutation(idx.reshape(-1,B)) if len(idx)%B==0 else idx[:len(idx)//B*B].reshape(-1,B))
order=np.concatenate(order)
pad=torch.nn.utils.rnn.pad_sequence
def get(step):
    c=[st_pairs[j] for j in order[step]]
    x=pad([torch.tensor(a) for a,_ in c],batch_first=True,padding_value=0); 
    mask=pad([torch.ones(len(a),dtype=torch.long) for a,_ in c],batch_first=True)
    y=pad([torch.tensor(b) for _,b in c],batch_first=True,padding_value=IGNORE)
    return {"input_ids":x,"labels":y,"attention_mask":mask}
args=TrainingArguments(max_steps=steps,batch_size=B,block_size=128,learning_rate=lr,warmup_steps=60,min_lr_ratio=0.,adam_beta2=.98,weight_decay=.01,seed=seed)
t=time.process_time(); h=fit(m,get,args,progress=False,count_targets=lambda b:int((b["labels"]!=IGNORE).sum())); m.eval(); print("train",time.process_time()-t,[round(r["loss"],3) for r in h.steps[::max(1,steps//10)]],flush=True)
test=w.stories(200,10**6)
@torch.inference_mode()
def write(stories,temp,gen):
    xs=[torch.tensor(w.encode(s.tokens)) for s in stories]
    x=pad(xs,batch_first=True); mask=pad([torch.ones_like(a) for a in xs],batch_first=True)
    mem=m.encoder(x,mask); ids=torch.zeros(len(xs),1,dtype=torch.long)
    for _ in range(36):
        lo=m.decoder(ids,encoder_hidden_states=mem,encoder_attention_mask=mask,logits_to_keep=1).logits[:,-1]
        nx=lo.argmax(-1) if not temp else torch.multinomial((lo/temp).softmax(-1),1,generator=gen)[:,0]
        ids=torch.cat([ids,nx[:,None]],1)
    return [[w.vocabulary[i] for i in r[1:].tolist()] for r in ids]
def cut(t): return t[:t.index("<eos>")] if "<eos>" in t else t
def sents(t):
    o=[[]]
    for x in t:
        o[-1].append(x)
        if x in ".?": o.append([])
    return [" ".join(x) for x in o if x]
for temp in (0,.7,1,1.5):
    t=time.process_time(); outs=[cut(x) for x in write(test,temp,torch.Generator().manual_seed(seed))]
    ok=n=dup=exact=full=0
    bad=[]
    for s,o in zip(test,outs):
        ev={" ".join(labels.retell(s,e)) for e in s.events}
        ss=sents(o); n+=len(ss); ok+=sum(x in ev for x in ss); dup+=len(ss)!=len(set(ss)); exact+=o==s.summary
        full+=all(x in ev for x in ss)
        bad+=[x for x in ss if x not in ev][:1]
    print(temp,"cons",ok/n,"dup",dup/len(test),"exact",exact/len(test),"whole",full/len(test),time.process_time()-t,bad[:5],flush=True)
