from llmbook.toyworld import ToyWorld
from llmbook.applications import summarization as S
from collections import Counter
w=ToyWorld("small"); st=w.stories(300,3); c=Counter(); bad=[]
for s in st:
    f=S.facts(s.summary,s); assert f.entailed==f.statements
    for x in S.sentences(s.tokens):
        j=S.judge(x,s); c[j.kind]+=1
        if j.kind in("malformed",): bad.append(" ".join(x))
    o=st[(st.index(s)+1)%300]
    for x in S.sentences(o.summary): c["other "+S.judge(x,s).kind]+=1
print(c,bad[:10])
lee=__import__("llmbook.corpora",fromlist=["x"]).gensim_file("lee_background.cor").read_text().splitlines()
print(lee[0][:300]); print(S.split_sentences(lee[0])[:3],S.checkable(lee[0])[:20])
