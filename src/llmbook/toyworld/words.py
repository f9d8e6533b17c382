"""The words of ToyWorld, each beside its Chinese: plain data, no logic but the parsing of rows.

Every table is ordered. A preset takes the first rows of each, so "tiny" is a part of "small" and
"small" a part of "large". Rows are `english chinese …`, separated by commas.
"""

from dataclasses import dataclass


def _table(text: str) -> dict[str, list[str]]:
    """Read rows of words: the first word of each row is the key, the rest its columns."""
    rows = (row.split() for row in text.split(","))
    return {key: columns for key, *columns in rows}


DAYS = _table(
    "Monday 星期一, Sunday 星期日, Tuesday 星期二, Friday 星期五, Wednesday 星期三, Saturday 星期六, Thursday 星期四"
)
TIMES = _table("morning 早上, evening 晚上, afternoon 下午")

# Names whose gender the name itself tells, and names that leave it open until a pronoun settles it.
# Florence and Jordan are also places (see TOWNS): a reader must tell the two senses apart.
NAMES_SHE = _table(
    "Anna 安娜, Florence 弗洛伦丝, Mary 玛丽, Lily 莉莉, Emma 艾玛, Clara 克拉拉, Rosa 罗莎, Julia 朱莉娅"
)
NAMES_HE = _table("Tom 汤姆, Peter 彼得, Paul 保罗, David 大卫, Victor 维克托, Oscar 奥斯卡, Henry 亨利, Martin 马丁")
NAMES_OPEN = _table(
    "Kim 金姆, Jordan 乔丹, Robin 罗宾, Alex 亚历克斯, Sam 萨姆, Casey 凯西, Taylor 泰勒, Jamie 杰米, Morgan 摩根"
)

# Occupation: Chinese, the pronoun a stereotype gives it, the place of work.
JOBS = _table(
    """
    nurse 护士 she hospital, farmer 农民 he garden, teacher 教师 she school, driver 司机 he station,
    librarian 图书管理员 she library, guard 保安 he museum, dancer 舞者 she theatre, engineer 工程师 he office,
    singer 歌手 she theatre, pilot 飞行员 he airport, cashier 收银员 she shop, mechanic 机修工 he factory,
    waitress 女服务员 she hotel, banker 银行家 he bank, cook 厨师 she kitchen, miner 矿工 he cellar
""".replace("waitress 女服务员", "florist 花艺师")
)

PLACES = _table("""
    hospital 医院, garden 花园, school 学校, station 车站, library 图书馆, museum 博物馆, theatre 剧院,
    office 办公室, kitchen 厨房, park 公园, airport 机场, shop 商店, factory 工厂, hotel 旅馆, bank 银行,
    cellar 地下室, attic 阁楼, forest 森林, barn 谷仓, church 教堂, market 市场, bakery 面包店, gym 体育馆, cafe 咖啡馆
""")
TOWNS = _table(
    "Florence 佛罗伦萨, Jordan 约旦, Oslo 奥斯陆, Lima 利马, Cairo 开罗, Delhi 德里, Paris 巴黎, Berlin 柏林"
)

COLOURS = _table("""
    red 红色, blue 蓝色, green 绿色, white 白色, black 黑色, yellow 黄色, grey 灰色, brown 棕色, purple 紫色,
    pink 粉色, golden 金色, silver 银色
""")

# Thing: Chinese, its measure word, the place where it is usually left.
THINGS = _table("""
    ball 球 个 garden, cup 杯子 个 kitchen, book 书 本 library, key 钥匙 把 office, hat 帽子 顶 theatre,
    letter 信 封 office, map 地图 张 station, coat 外套 件 school, kite 风筝 只 park, lamp 灯 盏 museum,
    umbrella 雨伞 把 station, pen 钢笔 支 school, knife 刀 把 kitchen, watch 手表 块 hospital,
    bag 包 个 airport, camera 相机 台 museum, phone 手机 部 office, drum 鼓 面 theatre, violin 小提琴 把 theatre,
    ring 戒指 枚 bank, rope 绳子 根 cellar, ladder 梯子 架 attic, basket 篮子 个 shop, blanket 毯子 条 hotel,
    scarf 围巾 条 shop, ticket 票 张 airport, vase 花瓶 个 hotel, mirror 镜子 面 attic, candle 蜡烛 支 church,
    brush 刷子 把 factory, hammer 锤子 把 factory, box 盒子 个 barn, spoon 勺子 把 cafe, stamp 邮票 枚 office,
    towel 毛巾 条 gym, chair 椅子 把 cafe, table 桌子 张 market, carpet 地毯 块 market, doll 娃娃 个 bakery,
    axe 斧头 把 forest
""")

# What is counted: plural, then singular, Chinese, measure word.
FRUITS = _table("""
    apples apple 苹果 个, cherries cherry 樱桃 颗, mushrooms mushroom 蘑菇 朵, pears pear 梨 个,
    lemons lemon 柠檬 个, berries berry 浆果 颗, roses rose 玫瑰 朵, melons melon 甜瓜 个
""")
NUMBERS = _table("zero 零, one 一, two 两, three 三, four 四, five 五, six 六, seven 七, eight 八, nine 九")

FEELINGS_GOOD = _table(
    "happy 高兴, proud 自豪, calm 平静, excited 兴奋, cheerful 开心, grateful 感激, relaxed 放松, brave 勇敢"
)
FEELINGS_BAD = _table(
    "sad 难过, angry 生气, tired 疲惫, worried 担心, afraid 害怕, lonely 孤独, bored 无聊, nervous 紧张"
)
# What a feeling makes one do: singular verb, plural verb, Chinese (several words joined by _).
ACTS_GOOD = _table("laughs laugh 笑_了, sings sing 唱_起_歌, dances dance 跳_起_舞, smiles smile 微笑_起来")
ACTS_BAD = _table("cries cry 哭_了, sighs sigh 叹_了_气, shouts shout 大喊_起来, frowns frown 皱_起_眉头")
TONES = _table("good 美好, quiet 平静, bad 糟糕")

# Scenery, where the verb must agree with a noun some words back: plural, singular, Chinese (, measure word).
SCENES = _table("""
    birds bird 鸟 只, horses horse 马 匹, trees tree 树 棵, boats boat 船 条, flowers flower 花 朵, cows cow 牛 头,
    dogs dog 狗 只, cats cat 猫 只
""")
LANDMARKS = _table("""
    houses house 房子, walls wall 墙, bridges bridge 桥, towers tower 塔, hills hill 小山, rivers river 河,
    roads road 路, gates gate 大门
""")
QUALITIES = _table("beautiful 美丽, big 大, small 小, wet 湿, dirty 脏, strange 奇怪, cold 冷, noisy 吵")

FILLERS = ("um", "er", "hm", "uh")  # what the noise dial puts between two words


@dataclass(frozen=True)
class Preset:
    """How many rows of each table a world uses, how large its cast is and how long its stories run."""

    days: int
    times: int
    names: int  # of each of the three sorts
    jobs: int
    places: int
    towns: int
    colours: int
    things: int
    fruits: int
    feelings: int  # of each of the two sorts; as many acts
    scenery: int
    cast: int
    min_events: int
    stop: float  # probability that the story ends, once min_events have happened
    max_events: int  # after this many, or past max_tokens, the story ends for certain
    max_tokens: int
    only: tuple[str, ...] = ()  # kinds of event that happen; empty for all


PRESETS = {
    "tiny": Preset(
        days=2, times=1, names=1, jobs=2, places=2, towns=0, colours=1, things=2, fruits=0, feelings=1, scenery=0,
        cast=1, min_events=1, stop=0.3, max_events=2, max_tokens=99,
        only=("day", "meet", "leave", "look", "feel", "end"),
    ),
    "small": Preset(
        days=7, times=3, names=3, jobs=8, places=8, towns=3, colours=6, things=10, fruits=3, feelings=4, scenery=4,
        cast=2, min_events=2, stop=0.16, max_events=99, max_tokens=88,
    ),
    "large": Preset(
        days=7, times=3, names=8, jobs=16, places=24, towns=8, colours=12, things=40, fruits=8, feelings=8, scenery=8,
        cast=3, min_events=4, stop=0.08, max_events=99, max_tokens=208,
    ),
}  # fmt: skip
