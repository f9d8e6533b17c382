import time,torch
from llmbook import corpora, pretrained
from llmbook.applications import summarization as S
t=time.process_time(); m,tok=pretrained.load(); print("load",time.process_time()-t,flush=True)
lee=corpora.gensim_file("lee_background.cor").read_text(encoding="utf-8").splitlines()
ok=[i for i,d in enumerate(lee) if 90<=len(d.split())<=150]
print(len(ok))
for i in ok[:2]:
    t=time.process_time()
    ids=tok.apply_chat_template([{"role":"user","content":"Summarise this article in one sentence.\n\n"+lee[i]}],add_generation_prompt=True,return_tensors="pt",return_dict=True)
    with torch.inference_mode(): o=m.generate(**ids,max_new_tokens=48,do_sample=False,pad_token_id=tok.eos_token_id)
    x=tok.decode(o[0,ids["input_ids"].shape[1]:],skip_special_tokens=True)
    print(ids["input_ids"].shape,time.process_time()-t,x,S.unsupported(x,lee[i]),S.unsupported(S.split_sentences(lee[i])[0],lee[i]),flush=True)
