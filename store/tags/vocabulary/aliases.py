"""Other names of the same genre, as programs, shops and people write them: for comparing only, never written.

A line is one genre; one that begins with spaces continues it. Names that differ in case, spaces and punctuation alone
need no line. Two genres of which one is a kind of the other are different genres: "Rap" is no other name of "Hip-Hop",
since FMA has both.
Source: FMA's genres.csv and ID3v1's list, as they write them; names that iTunes, Deezer, Discogs and Bandcamp are known
    to write, and translations, from memory.
"""

from functools import cache

from store.tags.vocabulary.spelling import spelling_key

ALIASES = """
A Cappella | Acapella | A Capella
Alternative Rock | Alt. Rock | Alt Rock | AlternRock | Alternatif et Indé
Ambient Electronic | Ambient Electronica | Electronic Ambient
Audiobook | Audiobooks | Audio Book | Audio Books | Spoken & Audio Books | Hörbuch | Hörbücher | Livre audio
Avant-Garde | Avantgarde Music
Be-Bop | Bebob
Big Band/Swing | Big Band & Swing | Swing & Big Band | Swing/Big Band
Breakbeat | Breakbeats | Break Beats | Breaks
Chill-out | Chill
Children's Music | Children's | Children | Kids | Kids & Family | Kinder | Kindermusik
Chip Music | Chipmusic
Christian & Gospel | Gospel & Religious | Christian/Gospel
Christmas | Christmas Music | Xmas
Classical | Classical Music | Klassik | Klassische Musik | Classique | Musique classique | Clásica | Clasica | Classica
Country & Western | Country/Western | Country and Western Music
Country | Country Music
Dance | Dance Music
Dancehall | Dance Hall | Reggae - Dancehall
Disco | Disco Music
Drum & Bass | Drum n Bass | Drum'n'Bass | DnB | D&B | D'n'B | D 'n' B
Dubstep | Dub Step
Easy Listening | Easy Listening Music
Electronic | Electronica | Electronic Music | Elektronik | Elektronisch | Elektronische Musik | Électronique
  | Electronique | Musique électronique | Electrónica | Elettronica | Eletrônica
Experimental | Experimental Music | Expérimental
Field Recordings | Field Recording
Folk | Folk Music | Folkmusic
Hip-Hop | Hip-Hop/Rap | Hip Hop/Rap | Rap/Hip Hop | Rap/Hip-Hop | Rap & Hip-Hop | Hip-Hop & Rap
  | Hip Hop Music | Hiphop & Rap
Holiday | Holiday Music | Holidays
Improv | Improvisation | Improvised Music
Indie-Rock | Independent Rock
Industrial | Industrial Music
Instrumental | Instrumental Music | Instrumentals
International | World | World Music | Worldmusic | Weltmusik | Musique du monde | Musiques du monde | Músicas del mundo
J-Pop | Japanese Pop
Jazz | Jazz Music
K-Pop | Korean Pop
Latin | Latin Music | Latino | Música latina | Musica Latina
Metal | Metal Music
Minimalism | Minimalist Music
Musique Concrete | Musique Concrète
New Age | New Age Music | Newage
Noise | Noise Music
Opera | Oper | Opéra
Podcast | Podcasts
Pop | Pop Music | Popmusik | Musique pop
Psych-Rock | Psychedelic Rock | Psychadelic Rock
Psych-Folk | Psychedelic Folk
Psytrance | Psychedelic Trance | Psy-Trance
Punk | Punk Music
R&B | RnB | R'n'B | R 'n' B | Rhythm & Blues | Rhythm'n'Blues | Rhythm n Blues
Reggae | Reggae Music
Rock | Rock Music | Rockmusik | Musique rock
Rock & Roll | Rock'n'Roll | Rock n Roll | Rock 'n' Roll | RnR | R&R
Singer-Songwriter | Singer/Songwriter | Singer & Songwriter | Singers & Songwriters | Liedermacher
Soul-RnB | R&B/Soul | Soul/R&B | Soul & R&B | R&B & Soul | RnB/Soul | Soul/RnB | Soul and RnB
Sound Effects | Sound Effect | Sound FX
Soundtrack | Soundtracks | OST | Original Soundtrack | Score/Soundtrack | Soundtracks & Scores | Film Soundtracks
Spoken Word | Spokenword | Spoken-Word Audio
Synth Pop | Synthpop Music
Techno | Techno Music
Trance | Trance Music
Trip-Hop | Trip Hop Music
"""


@cache
def alias_groups() -> dict[str, tuple[str, ...]]:
    """Return, for the key of each name in the list, the keys of all names of that genre, as in its line."""
    groups: dict[str, tuple[str, ...]] = {}
    for line in ALIASES.replace("\n  |", " |").strip().splitlines():
        keys = tuple(dict.fromkeys(spelling_key(name.strip()) for name in line.split(" | ")))
        assert not groups.keys() & set(keys), f"a name of {line!r} is in another line too"
        groups |= dict.fromkeys(keys, keys)
    return groups
