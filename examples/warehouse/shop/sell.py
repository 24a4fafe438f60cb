"""A shop that sells for a day: makes customers, products and orders with a seed, into an SQLite database."""

import random
import sqlite3
import sys
from datetime import date, datetime, timedelta

DAY, COUNT = date.fromisoformat(sys.argv[1]), int(sys.argv[2])
COUNTRIES = ("PL", "DE", "FR", "ES", "IT")
TABLES = """
    create table if not exists customers (
        id integer primary key, name text not null, email text, country text, changed_at timestamp not null);
    create table if not exists products (id integer primary key, name text not null, price numeric(10,2) not null);
    create table if not exists orders (
        id integer primary key, customer_id integer not null, product_id integer not null, quantity integer not null,
        price numeric(10,2) not null, sold_at timestamp not null);
"""

chance = random.Random(DAY.toordinal())
morning = datetime(DAY.year, DAY.month, DAY.day, 8)
with sqlite3.connect("data/shop.db") as db:
    db.executescript(TABLES)
    db.executemany(
        "insert or ignore into products values (?, ?, ?)",
        [(number, f"product {number}", round(5 + number * 1.25, 2)) for number in range(1, 41)],
    )
    first = db.execute("select coalesce(max(id), 0) + 1 from customers").fetchone()[0]
    customers = [
        (number, f"customer {number}", f"c{number}@example.org", chance.choice(COUNTRIES), str(morning))
        for number in range(first, first + 20)
    ]
    db.executemany("insert into customers values (?, ?, ?, ?, ?)", customers)
    mover = chance.randrange(1, first + 20)  # one of them moves to another country
    db.execute("update customers set country = 'PT', changed_at = ? where id = ?", (str(morning), mover))
    number = db.execute("select coalesce(max(id), 0) from orders").fetchone()[0]
    for index in range(COUNT):
        product, quantity = chance.randrange(1, 41), chance.randrange(1, 6)
        if index % 250 == 249:
            quantity = 0  # a fault of the shop's software
        sold = morning + timedelta(seconds=index * 36_000 // COUNT)
        row = (number + index + 1, chance.randrange(1, first + 20), product, quantity)
        db.execute(
            "insert into orders select ?, ?, ?, ?, price, ? from products where id = ?", (*row, str(sold), product)
        )
db.close()
print(f"sold {COUNT} orders on {DAY}")
