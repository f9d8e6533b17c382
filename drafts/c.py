import sys,torch,numpy as np,collections
torch.set_num_threads(1)
from llmbook.applications import dialogue as d, shop
from llmbook.transformer import GPT
m=GPT.from_pretrained(sys.argv[1]); v=d.Words()
it=[(c,a,k.turns[i-1][0].state if i else {}) for j in range(60) for k in [shop.converse(np.random.default_rng([99,j]))] for i,(c,(a,b)) in enumerate(zip(d.contexts(k),k.turns)) if a.kind=="change"]
out=d.respond(m,v,[x[0] for x in it],most=8)
ok=collections.defaultdict(list); 
for (c,a,prev),o in zip(it,out):
    st=d.read_state([x for x,_ in o]); new=[s for s in shop.SLOTS if prev.get(s)!=a.state.get(s)]
    s=new[0] if new else "none"
    t=" ".join("V" if (w==a.state.get(s)) else "O" if w==prev.get(s) else w for w in a.words)
    ok[t].append(st==a.state); ok["slot "+s].append(st==a.state)
    if st!=a.state and len(ok[t])<3: print(" ".join(a.words),d.state_tokens(a.state)[1:],[x for x,_ in o][1:7])
for t,l in sorted(ok.items()): print(t,len(l),np.mean(l).round(2))
