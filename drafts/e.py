import sys,torch,numpy as np,collections
torch.set_num_threads(1)
from llmbook.applications import dialogue as d, shop
from llmbook.transformer import GPT
m=GPT.from_pretrained(sys.argv[1]); v=d.Words()
talks=[shop.converse(np.random.default_rng([99,i])) for i in range(60)]
n=0;c=collections.Counter()
for k in talks:
    cs=d.contexts(k)
    for ctx,(a,b) in zip(cs,k.turns):
        out=[x for x,_ in d.respond(m,v,[ctx],most=8)[0]]
        st=d.read_state(out)
        if st!=a.state:
            for s in shop.SLOTS:
                if (st or {}).get(s)!=a.state.get(s): c[s]+=1
            if n<25: print(" ".join(a.words),"|",k.notes and (k.notes.place,k.notes.favourite),"|",d.state_tokens(a.state)[1:],out[1:7]); n+=1
print(c)
