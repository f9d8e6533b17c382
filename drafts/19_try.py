import time,sys
from llmbook.applications import understanding as u
from llmbook.toyworld import ToyWorld
w=ToyWorld("small"); 
n,steps,seed=map(int,sys.argv[1:4])
lr=float(sys.argv[4]) if len(sys.argv)>4 else 3e-3
t=time.process_time(); m=u.trained_reader(u.ReaderRecipe(n,steps,seed=seed,learning_rate=lr)); print("train",time.process_time()-t)
test=w.stories(200,10_000+seed); t=time.process_time(); R=u.read(m,w,test); print("read",time.process_time()-t)
T=[u.truth(s) for s in test]
print("ent",u.set_scores([x.spans for x in T],[x.spans for x in R]).f1,"rel",u.set_scores([x.triples for x in T],[x.triples for x in R]),
"mood",sum(x.moods.get(p)==y for x,t in zip(R,T) for p,y in t.moods.items())/sum(len(t.moods) for t in T))
import collections
miss=collections.Counter(); 
for x,t in zip(R,T):
    for a in t.triples-x.triples: miss['-',a[1]]+=1
    for a in x.triples-t.triples: miss['+',a[1]]+=1
print(miss.most_common(12))
