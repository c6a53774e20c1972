# ruff: noqa: RUF001  characters that look like others are the point
"""Free text of the simulated messages: what a parser has to survive."""

SUBJECTS = (
    "Welcome to Acme, let's get you started: three things to do on your first day",
    "Your order #10482 has shipped and will be with you on Thursday, 9 April",
    "Reset your password",
    'The "big one": 50% off everything until Sunday, free delivery, and a surprise',
    "Votre reçu d'achat n° 10482 – merci et à bientôt dans nos boutiques !",
    "Größenänderung für Ihre Bestellung bestätigt: so geht es jetzt weiter",
    "Przypomnienie: Twoja subskrypcja wkrótce wygaśnie, przedłuż ją już dziś",
    "¡Última oportunidad! Aún estás a tiempo de conseguir un 30 % de descuento",
    "ご注文ありがとうございます（注文番号：10482）",
    "您的订单已发货,预计三天内送达,点击查看物流",
    "주문이 완료되었습니다. 배송 상황을 확인하세요",
    "تم تأكيد طلبك رقم ١٠٤٨٢ وسيصلك خلال ثلاثة أيام",
    "ההזמנה שלך בדרך אליך ותגיע ביום חמישי",
    "आपका ऑर्डर भेज दिया गया है",
    "🎉 You're in! 👩\u200d💻 Here is what's next",
    "🔥🔥 Flash sale 🔥🔥",
    "Invoice 2026\\0042 <ready> & payable",
    "A\u0301ccents in decomposed form",
    "Tab\tand line\nbreak in a subject",
    "",
    (
        "Weekly digest: 12 updates in projects that you follow, 3 mentions, and one thing that "
        "you may have missed while you were away last week"
    ),
)

_TRACKING = (
    "utm_source=customer.io&utm_medium={0}&utm_campaign=spring_launch_2026&utm_content=hero_button"
    "&cio_id=d9c106000001&_cio_token=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)
LINKS = (
    "https://acme.example/welcome?" + _TRACKING.format("email"),
    "https://acme.example/orders/10482?" + _TRACKING.format("sms"),
    "https://acme.example/sale?utm_content=%F0%9F%94%A5&ref=a%20b&price=<50&"
    + _TRACKING.format("push"),
    "https://docs.acme.example/start?" + _TRACKING.format("email") + "#step-2",
    "https://münchen.example/straße?q=größe&" + _TRACKING.format("email"),
    "acme://product/2",
    "https://bit.example/3xYz",
)

FAILURES = {
    "email": (
        "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown",
        "552 5.2.2 Mailbox full [id=#4411]",
        "Variable 'customer.first_name' is missing",
        "421 4.7.0 [TSS04] Messages temporarily deferred due to user complaints",
        "suppressed: recipient is on the suppression list",
    ),
    "push": ("NoDevicesSynced", "NotRegistered", "InvalidRegistration", "BadDeviceToken"),
    "sms": (
        (
            "Twilio Error 21408: Permission to send an SMS has not been enabled for the region "
            "indicated by the 'To' number: +18008675309."
        ),
        "Twilio Error 21610: Attempt to send to unsubscribed recipient",
        "Twilio Error 30003: Unreachable destination handset",
    ),
    "whatsapp": (
        "131026: Message undeliverable",
        "131047: More than 24 hours have passed since the recipient last replied",
    ),
    "in_app": ("No active session", "Variable 'event.plan' is missing"),
    "slack": ("channel_not_found", "HTTP 429 Too Many Requests {}"),
    "webhook": ("HTTP 404 Not Found []", 'HTTP 500 Internal Server Error {"error":"boom"}'),
}

SHORT_MESSAGES = (
    "Your code is 481516. It expires in ten minutes.",
    "Hi Ada, your table for 2 is booked. Reply C to cancel.",
    "Ihre Lieferung kommt heute zwischen 14 und 16 Uhr. 📦",
    "Rappel : votre rendez-vous est demain à 9 h 30",
    "本日のご予約をお待ちしております",
)

_PARAGRAPH = (
    '<p style="margin:0 0 16px;font-family:Helvetica,Arial,sans-serif">Hi {name},</p>'
    "<p>we've added <b>something new</b> &amp; we think you'll like it: "
    '<a href="https://acme.example/new?a=1&b=2">have a look</a>.</p>'
)
MAIL_BODIES = tuple(
    '<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>Acme</title></head><body>\n'
    + _PARAGRAPH * repeats
    + "\n<p>— L'équipe Acme ❤️</p></body></html>\n"
    for repeats in (1, 3, 6)
)

SLACK_CHANNELS = ("#signups", "#orders", "#alerts-prod")
HOOK_TARGETS = ("https://api.acme.example/hooks/cio", "https://test.example.com/process?x=1&y=2")
