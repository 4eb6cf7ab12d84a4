"""Which of the four regions a country belongs to, by geography.

The groups follow the United Nations' geographic regions (M49), which also place the
remote islands: Bouvet Island and South Georgia with South America, the French Southern
Territories and the British Indian Ocean Territory with Africa. Four are decided here, because
M49 leaves them out or places them elsewhere: Iran goes with the rest of the Middle East, Kosovo
(XK) with Europe, Taiwan with East Asia, and Antarctica with South America, its nearest neighbour.

Every ISO 3166-1 alpha-2 country is in exactly one region. Operators change single
countries and networks with an override file (`core/geo/overrides`), not here.
"""

from __future__ import annotations

import re

REGIONS = ("sa", "us", "eu", "ap")

CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,15}")
"""What a region may be called, one of the four or not."""

_SOUTH_AMERICA = "AQ AR BO BR BV CL CO EC FK GF GS GY PE PY SR UY VE"

_NORTH_AMERICA = "BM CA GL MX PM US"
_CENTRAL_AMERICA = "BZ CR GT HN NI PA SV"
_CARIBBEAN = "AG AI AW BB BL BQ BS CU CW DM DO GD GP HT JM KN KY LC MF MQ MS PR SX TC TT VC VG VI"

_EUROPE = (
    "AD AL AT AX BA BE BG BY CH CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT"
    " LU LV MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK"
)
_MIDDLE_EAST_AND_CAUCASUS = "AE AM AZ BH CY GE IL IQ IR JO KW LB OM PS QA SA SY TR YE"
_AFRICA = (
    "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW IO KE KM LR LS LY MA"
    " MG ML MR MU MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TF TG TN TZ UG YT ZA ZM ZW"
)

_CENTRAL_AND_SOUTH_ASIA = "AF BD BT IN KG KZ LK MV NP PK TJ TM UZ"
_EAST_ASIA = "CN HK JP KP KR MN MO TW"
_SOUTH_EAST_ASIA = "BN ID KH LA MM MY PH SG TH TL VN"
_OCEANIA = "AS AU CC CK CX FJ FM GU HM KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS"

COUNTRIES: dict[str, tuple[str, ...]] = {
    region: tuple(" ".join(areas).split())
    for region, areas in {
        "sa": (_SOUTH_AMERICA,),
        "us": (_NORTH_AMERICA, _CENTRAL_AMERICA, _CARIBBEAN),
        "eu": (_EUROPE, _MIDDLE_EAST_AND_CAUCASUS, _AFRICA),
        "ap": (_CENTRAL_AND_SOUTH_ASIA, _EAST_ASIA, _SOUTH_EAST_ASIA, _OCEANIA),
    }.items()
}
"""The upper-case country codes of each region."""

_REGION_OF: dict[str | None, str] = {
    country: region for region, countries in COUNTRIES.items() for country in countries
}


def region_of(country: str | None) -> str | None:
    """Return the region of an upper-case ISO 3166-1 alpha-2 code; None for anything else."""
    return _REGION_OF.get(country)
